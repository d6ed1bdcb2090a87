// How strong a weight looks: on a logarithmic scale, from the colour of the paper to that of evidence.

/** Decades below the largest that can still be told from nothing. */
export const DECADES = 4;

type Colour = [number, number, number];

const LIGHT: Colour[] = [
  [251, 250, 247],
  [246, 214, 155],
  [224, 140, 44],
  [150, 72, 8],
  [60, 24, 4],
];

const DARK: Colour[] = [
  [28, 31, 36],
  [82, 52, 18],
  [166, 98, 20],
  [240, 165, 60],
  [255, 236, 196],
];

/** 0 for nothing, 1 for `most`. */
export function height(value: number, most: number): number {
  if (!(value > 0) || !(most > 0)) return 0;
  return Math.max(0, Math.min(1, 1 + Math.log10(value / most) / DECADES));
}

function blend(height: number, dark: boolean): Colour {
  const ramp = dark ? DARK : LIGHT;
  const at = height * (ramp.length - 1);
  const low = Math.min(ramp.length - 2, Math.floor(at));
  const part = at - low;
  return [0, 1, 2].map((i) => Math.round(ramp[low]![i]! * (1 - part) + ramp[low + 1]![i]! * part)) as Colour;
}

const STEPS = 1024;
const tables = [false, true].map((dark) => Array.from({ length: STEPS }, (_, i) => blend(i / (STEPS - 1), dark)));

export const colour = (height: number, dark: boolean): Colour => tables[dark ? 1 : 0]![Math.round(height * (STEPS - 1))]!;

export const css = (height: number, dark: boolean): string => `rgb(${colour(height, dark).join(" ")})`;
