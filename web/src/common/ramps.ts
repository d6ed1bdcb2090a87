// Colour ramps, made from OKLCH: lightness falls (or, on dark paper, rises) evenly from paper to ink, so that order is
// seen without telling hues apart, by people of any colour vision and in print.

export type Ramp = "ember" | "ocean" | "grey";
export const RAMPS: readonly Ramp[] = ["ember", "ocean", "grey"];

/** Hue in degrees and chroma at paper, middle and ink. */
const PATHS: Record<Ramp, { hue: [number, number, number]; chroma: [number, number, number] }> = {
  ember: { hue: [85, 40, -70], chroma: [0.005, 0.17, 0.11] },
  ocean: { hue: [190, 225, 275], chroma: [0.004, 0.12, 0.13] },
  grey: { hue: [90, 90, 90], chroma: [0, 0, 0] },
};

/** 256 colours from paper to ink, as RGBA numbers for a Uint32Array over image data (little-endian). */
export function ramp(name: Ramp, dark: boolean): Uint32Array {
  const { hue, chroma } = PATHS[name];
  const colours = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const t = i / 255;
    const light = dark ? 0.2 + 0.74 * t : 0.985 - 0.76 * t;
    const at = dark ? 1 - t : t; // the same hues lie at the same lightness on either paper
    const [r, g, b] = rgb(light, bent(chroma, at) * (dark ? Math.min(1, 4 * t) : 1), bent(hue, at));
    colours[i] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return colours;
}

/** A colour of a ramp for a style sheet. */
export function css(colour: number): string {
  return `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`;
}

function bent([a, b, c]: [number, number, number], t: number): number {
  return t < 0.5 ? a + (b - a) * 2 * t : b + (c - b) * (2 * t - 1);
}

/** OKLCH to sRGB, 0 … 255 (Ottosson 2020, https://bottosson.github.io/posts/oklab). */
function rgb(light: number, chroma: number, hue: number): [number, number, number] {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (light - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    channel(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    channel(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    channel(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}

function channel(linear: number): number {
  const value = linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055;
  return Math.round(255 * Math.min(1, Math.max(0, value)));
}
