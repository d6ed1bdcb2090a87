// From numbers to pixels: one tile at a time, whenever the way of looking at it changes. Nothing is asked for again.

import type { TileData } from "./api";
import type { Measure, Scale, View } from "./address";
import { SIDE } from "./camera";
import type { Palette } from "./palette";
import type { Tile } from "./tiles";

export interface Style {
  measure: Measure;
  scale: Scale;
  decades: number;
  top: number;
  /** Keys that are hidden, in order. */
  hidden: number[];
  palette: Palette;
}

export function styled(view: View, hidden: number[], palette: Palette): Style {
  return { measure: view.measure, scale: view.scale, decades: view.decades, top: view.top, hidden, palette };
}

function id(style: Style): string {
  const { measure, scale, decades, top, hidden, palette } = style;
  return [measure, scale, decades, top, hidden.join("."), palette.dark, palette.colours[128]].join("|");
}

/** Weights that a cell holds: fewer at the matrix's last row and column. */
export function inside(block: number, first: number, length: number): number {
  return Math.min(block, length - first);
}

/** Where a share of a row's attention lies between paper and ink, 0 … 1. */
export function shade(share: number, style: Pick<Style, "scale" | "decades" | "top">): number {
  if (share <= 0) return 0;
  const most = 10 ** -style.top;
  const at = style.scale === "linear" ? share / most : 1 + Math.log10(share) / style.decades;
  return Math.min(1, Math.max(0, at));
}

/**
 * The number that is shown of a cell: its mass, the mean of its weights, or the largest. Colours show the mass as a share
 * of its rows' attention, so that all three lie between 0 and 1 at any zoom.
 */
export function value(data: TileData, at: number, measure: Measure, weights: number): number {
  if (measure === "max") return data.largest[at] ?? 0;
  const mass = data.mass[at] ?? 0;
  return measure === "mass" ? mass : mass / weights;
}

/** The tile as a picture of one pixel per cell. */
export function picture(tile: Tile, x: number, y: number, block: number, n: number, m: number, style: Style) {
  const want = id(style);
  if (tile.picture && tile.style === want) return tile.picture;
  const data = tile.data;
  if (!data) return null;
  const canvas = tile.picture ?? document.createElement("canvas");
  canvas.width = data.columns;
  canvas.height = data.rows;
  const context = canvas.getContext("2d");
  if (!context) return null;
  const image = context.createImageData(data.columns, data.rows);
  const pixels = new Uint32Array(image.data.buffer);
  const { colours } = style.palette;
  const source = style.measure === "max" ? data.largest : data.mass;
  const log = style.scale === "log";
  const factor = log ? 255 / style.decades / Math.LN10 : 255 * 10 ** style.top;
  for (let r = 0; r < data.known; r++) {
    const tall = inside(block, (y * SIDE + r) * block, n);
    for (let c = 0; c < data.columns; c++) {
      const at = r * data.columns + c;
      let v = source[at] ?? 0;
      if (v <= 0) {
        pixels[at] = colours[0] ?? 0;
        continue;
      }
      if (style.measure === "mass") v /= tall;
      else if (style.measure === "mean") v /= tall * inside(block, (x * SIDE + c) * block, m);
      const t = log ? 255 + Math.log(v) * factor : v * factor;
      pixels[at] = colours[t <= 0 ? 0 : t >= 255 ? 255 : t | 0] ?? 0;
    }
  }
  const grey = Number.parseInt(style.palette.hidden.slice(1), 16);
  const covered = (255 << 24) | ((grey & 255) << 16) | (grey & 0xff00) | (grey >> 16);
  for (const key of style.hidden) {
    const c = Math.floor(key / block) - x * SIDE;
    if (c >= 0 && c < data.columns) for (let r = 0; r < data.known; r++) pixels[r * data.columns + c] = covered;
  }
  context.putImageData(image, 0, 0);
  tile.picture = canvas;
  tile.style = want;
  return canvas;
}
