// Where one looks: the weight in the middle of the map, and how many pixels a weight takes.

export const SIDE = 256;
/** Pixels a weight takes at the closest. */
export const CLOSEST = 72;
/** Pixels from which on a weight's number is written into it. */
export const READABLE = 52;

export interface Camera {
  column: number;
  row: number;
  /** Pixels per weight; 0 stands for as many as show the whole matrix. */
  scale: number;
}

export interface Size {
  n: number;
  m: number;
}

/** The map's part of a canvas, in CSS pixels. */
export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

export function deepest({ n, m }: Size): number {
  return Math.max(0, Math.ceil(Math.log2(Math.ceil(Math.max(n, m) / SIDE))));
}

/** The scale at which the whole matrix is in view. */
export function fitting(size: Size, box: Box): number {
  return Math.min(CLOSEST, Math.max(1, box.width) / size.m, Math.max(1, box.height) / size.n);
}

/** The camera as far as this matrix allows: no farther out than the whole, no closer than is of use, and not beside it. */
export function within(camera: Camera, size: Size, box: Box): Camera {
  const least = fitting(size, box);
  const scale = camera.scale === 0 ? least : Math.min(CLOSEST, Math.max(least, camera.scale));
  return {
    scale,
    column: centred(camera.column, size.m, box.width / scale),
    row: centred(camera.row, size.n, box.height / scale),
  };
}

function centred(at: number, length: number, seen: number): number {
  if (seen >= length) return length / 2;
  return Math.min(length - seen / 2, Math.max(seen / 2, at));
}

/** The level whose cells are the smallest that take a whole pixel of the device. */
export function level(camera: Camera, size: Size, ratio: number): { z: number; block: number } {
  const top = deepest(size);
  const k = Math.min(top, Math.max(0, Math.ceil(-Math.log2(camera.scale * ratio) - 1e-6)));
  return { z: top - k, block: 2 ** k };
}

export function toX(camera: Camera, box: Box, column: number): number {
  return box.left + box.width / 2 + (column - camera.column) * camera.scale;
}

export function toY(camera: Camera, box: Box, row: number): number {
  return box.top + box.height / 2 + (row - camera.row) * camera.scale;
}

export function toColumn(camera: Camera, box: Box, x: number): number {
  return camera.column + (x - box.left - box.width / 2) / camera.scale;
}

export function toRow(camera: Camera, box: Box, y: number): number {
  return camera.row + (y - box.top - box.height / 2) / camera.scale;
}

/** Closer by a factor, with what lies under a point staying there. */
export function zoomed(camera: Camera, size: Size, box: Box, factor: number, x: number, y: number): Camera {
  const from = within(camera, size, box);
  const scale = Math.min(CLOSEST, Math.max(fitting(size, box), from.scale * factor));
  const keep = 1 / from.scale - 1 / scale;
  return within(
    {
      scale,
      column: from.column + (x - box.left - box.width / 2) * keep,
      row: from.row + (y - box.top - box.height / 2) * keep,
    },
    size,
    box,
  );
}
