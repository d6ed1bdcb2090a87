// What a report's data calls a number, as it is shown.

import { digits, percent } from "../common/numbers";
import type { Fact, Measure } from "./data";

export const shown = (x: number, unit: Measure["unit"]): string =>
  unit === "share" ? percent(x) : unit === "nats" ? `${digits(x)} nats` : digits(x);

export function fact({ value, unit }: Fact): string {
  if (typeof value === "string") return value;
  if (unit === "bytes") return value >= 1e9 ? `${digits(value / 1e9)} GB` : `${digits(value / 1e6)} MB`;
  return unit ? `${digits(value)} ${unit}` : digits(value);
}
