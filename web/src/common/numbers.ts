// Numbers as they are shown: three significant digits, so that what stands on screen is what the library gives.

/** A weight, a sum of weights, nats: 0.0231, 4.10e-6, −12.3, 1,234. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const text =
    size === 0 ? "0" : size < 1e-3 ? size.toExponential(2) : size >= 999.5 ? count(Math.round(size)) : size.toPrecision(3);
  return value < 0 ? `−${text}` : text;
}

/** A share of a whole: 28.4%. */
export const percent = (share: number): string => `${digits(100 * share)}%`;

/** A count or a position, in groups of three. */
export const count = (value: number): string => value.toLocaleString("en");
