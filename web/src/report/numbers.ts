// Numbers as they are shown: three significant digits.

import type { Fact, Measure } from "./data";

export function digits(x: number): string {
  if (!Number.isFinite(x)) return "–";
  const size = Math.abs(x);
  const text = x === 0 ? "0" : size >= 999.5 ? Math.round(x).toLocaleString("en") : x.toPrecision(3);
  return text.replace("-", "−").replace("e−", "e-");
}

export const percent = (x: number): string => `${digits(100 * x)}%`;

export const shown = (x: number, unit: Measure["unit"]): string =>
  unit === "share" ? percent(x) : unit === "nats" ? `${digits(x)} nats` : digits(x);

export function fact({ value, unit }: Fact): string {
  if (typeof value === "string") return value;
  if (unit === "bytes") return value >= 1e9 ? `${digits(value / 1e9)} GB` : `${digits(value / 1e6)} MB`;
  return unit ? `${digits(value)} ${unit}` : digits(value);
}
