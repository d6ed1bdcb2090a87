// The maps of the heads: cells, and how they are drawn.

import type { Attention } from "./data";
import { colour, height } from "./colours";

export interface Grid {
  rows: number;
  cols: number;
  shares: ArrayLike<number>;
  /** The largest share that is shown: sinks may be left out. */
  most: number;
}

/** The map of a head, by number; of all heads together where it is null. */
export function grid(attention: Attention, head: number | null, withSinks: boolean): Grid | null {
  const { maps, sinks } = attention;
  if (!maps) return null;
  const [, rows, cols] = maps.shape;
  const at = (head === null ? 0 : head + 1) * rows * cols;
  const shares = maps.shares.subarray(at, at + rows * cols);
  const hidden = new Set(withSinks ? [] : sinks.map((key) => Math.floor(key / maps.cols)));
  let most = 0;
  shares.forEach((share, i) => {
    if (share > most && !hidden.has(i % cols)) most = share;
  });
  return { rows, cols, shares, most };
}

export function paint(canvas: HTMLCanvasElement, grid: Grid, dark: boolean): void {
  canvas.width = grid.cols;
  canvas.height = grid.rows;
  const context = canvas.getContext("2d");
  if (!context) return;
  const picture = context.createImageData(grid.cols, grid.rows);
  for (let i = 0; i < grid.rows * grid.cols; i++) {
    const [r, g, b] = colour(height(grid.shares[i]!, grid.most), dark);
    picture.data[4 * i] = r;
    picture.data[4 * i + 1] = g;
    picture.data[4 * i + 2] = b;
    picture.data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

/** Sums or means of consecutive numbers, `size` of them each; numbers that are none are left out. */
export function binned(values: ArrayLike<number>, size: number, how: "sum" | "mean"): number[] {
  return Array.from({ length: Math.ceil(values.length / size) }, (_, bin) => {
    let total = 0;
    let count = 0;
    for (let i = bin * size; i < Math.min(values.length, (bin + 1) * size); i++) {
      if (Number.isNaN(values[i]!)) continue;
      total += values[i]!;
      count += 1;
    }
    return how === "sum" ? total : count ? total / count : NaN;
  });
}
