// Numbers as they are shown: three significant digits, so that what stands on screen is what the library gives.

/** A weight or a sum of weights: 0.0231, 4.10e-6, 12.3. */
export function weight(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(2);
  return value.toPrecision(size >= 100 ? Math.min(6, Math.floor(Math.log10(size)) + 1) : 3);
}

/** A share of a whole: 28.4 %. */
export function percent(share: number): string {
  return `${(100 * share).toPrecision(3)} %`;
}

/** A count or a position, in groups of three. */
export function count(value: number): string {
  return value.toLocaleString("en");
}
