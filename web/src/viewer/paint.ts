// Drawing one pane: map, tracks, axes, numbers, marks. A pure function of a scene, so that the screen and the exported
// picture are the same drawing.

import { count, digits } from "../common/numbers";
import { css } from "../common/ramps";
import type { At, Tracks } from "./api";
import { type Box, type Camera, READABLE, SIDE, type Size, deepest, level, toColumn, toRow, toX, toY } from "./camera";
import { type Style, inside, picture, shade, value } from "./colour";
import type { Tile, Tiles } from "./tiles";

export interface Scene {
  at: At;
  size: Size;
  camera: Camera;
  tiles: Tiles;
  style: Style;
  tracks: Tracks | null;
  /** The tokens of rows and columns, from the first row and column on. */
  rowText: readonly string[];
  columnText: readonly string[];
  rowStart: number;
  columnStart: number;
  chosen: { row: number | null; column: number | null };
  hover: { row: number; column: number } | null;
  found: { rows: readonly number[]; columns: readonly number[] };
  ratio: number;
}

export const TRACK = 40;
const LABELS = 74;
const TOP_LABELS = 20;
const FONT = '"Inter", system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif';
const MONO = 'ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace';

/** The map's part of a canvas: tracks and labels stand left of it and above. */
export function mapBox(width: number, height: number): Box {
  const left = width < 480 ? 56 + 24 : LABELS + TRACK;
  const top = TOP_LABELS + TRACK;
  return { left, top, width: Math.max(1, width - left - 1), height: Math.max(1, height - top - 1) };
}

export function paint(context: CanvasRenderingContext2D, width: number, height: number, scene: Scene): void {
  const { palette } = scene.style;
  const box = mapBox(width, height);
  context.save();
  context.fillStyle = palette.paper;
  context.fillRect(0, 0, width, height);
  context.fillStyle = palette.outside;
  context.fillRect(box.left, box.top, box.width, box.height);
  context.beginPath();
  context.rect(box.left, box.top, box.width, box.height);
  context.save();
  context.clip();
  paintTiles(context, scene, box);
  paintNumbers(context, scene, box);
  paintMarks(context, scene, box);
  context.restore();
  paintTracks(context, scene, box);
  paintAxes(context, scene, box);
  context.strokeStyle = palette.line;
  context.lineWidth = 1;
  context.strokeRect(box.left - 0.5, box.top - 0.5, box.width + 1, box.height + 1);
  context.restore();
}

/** Rows and columns of weights that are in view. */
export function seen(scene: Pick<Scene, "camera" | "size">, box: Box) {
  const { camera, size } = scene;
  return {
    left: Math.max(0, Math.floor(toColumn(camera, box, box.left))),
    right: Math.min(size.m, Math.ceil(toColumn(camera, box, box.left + box.width))),
    top: Math.max(0, Math.floor(toRow(camera, box, box.top))),
    bottom: Math.min(size.n, Math.ceil(toRow(camera, box, box.top + box.height))),
  };
}

function paintTiles(context: CanvasRenderingContext2D, scene: Scene, box: Box): void {
  const { camera, size, at, tiles, ratio, style } = scene;
  const { z, block } = level(camera, size, ratio);
  const side = SIDE * block;
  const { left, right, top, bottom } = seen(scene, box);
  const blank = css(style.palette.colours[0] ?? 0);
  context.imageSmoothingEnabled = false;
  for (let y = Math.floor(top / side); y * side < bottom; y++) {
    for (let x = Math.floor(left / side); x * side < right; x++) {
      const far = Math.hypot((x + 0.5) * side - camera.column, (y + 0.5) * side - camera.row) / side;
      const tile = tiles.want(at, z, x, y, far);
      const place = { x: x * side, y: y * side, w: Math.min(side, size.m - x * side), h: Math.min(side, size.n - y * side) };
      const made = tile && picture(tile, x, y, block, size.n, size.m, style);
      const [x0, y0] = [toX(camera, box, place.x), toY(camera, box, place.y)];
      const [x1, y1] = [toX(camera, box, place.x + place.w), toY(camera, box, place.y + place.h)];
      context.fillStyle = blank;
      context.fillRect(x0, y0, x1 - x0, y1 - y0);
      if (made && tile.data) {
        // The last cells of a tile may be cut off by the matrix's edge: they are drawn whole, and clipped to it.
        context.save();
        context.beginPath();
        context.rect(x0, y0, x1 - x0, y1 - y0);
        context.clip();
        const cell = block * camera.scale;
        context.drawImage(made, x0, y0, tile.data.columns * cell, tile.data.rows * cell);
        context.restore();
      } else {
        paintAncestor(context, scene, box, z, x, y, [x0, y0, x1 - x0, y1 - y0]);
      }
    }
  }
}

/** While a tile is on its way: the part of the nearest coarser one that covers it. */
function paintAncestor(
  context: CanvasRenderingContext2D,
  scene: Scene,
  box: Box,
  z: number,
  x: number,
  y: number,
  [left, top, width, height]: [number, number, number, number],
): void {
  const { camera, size, at, tiles, style } = scene;
  for (let up = 1; up <= z; up++) {
    const [px, py] = [x >> up, y >> up];
    const tile = tiles.peek(at, z - up, px, py);
    if (!tile?.data) continue;
    const block = 2 ** (deepest(size) - (z - up));
    const made = picture(tile, px, py, block, size.n, size.m, style);
    if (!made) continue;
    context.save();
    context.beginPath();
    context.rect(left, top, width, height);
    context.clip();
    const [x0, y0] = [toX(camera, box, px * SIDE * block), toY(camera, box, py * SIDE * block)];
    const cell = block * camera.scale;
    context.globalAlpha = 0.75;
    context.drawImage(made, x0, y0, tile.data.columns * cell, tile.data.rows * cell);
    context.restore();
    return;
  }
}

function paintNumbers(context: CanvasRenderingContext2D, scene: Scene, box: Box): void {
  const { camera, size, style, at, tiles } = scene;
  if (camera.scale < 14) return;
  const { left, right, top, bottom } = seen(scene, box);
  const z = deepest(size);
  context.strokeStyle = style.palette.dark ? "rgb(255 255 255 / 0.06)" : "rgb(0 0 0 / 0.06)";
  context.lineWidth = 1;
  context.beginPath();
  for (let j = left; j <= right; j++) {
    const x = Math.round(toX(camera, box, j)) - 0.5;
    context.moveTo(x, toY(camera, box, top));
    context.lineTo(x, toY(camera, box, bottom));
  }
  for (let i = top; i <= bottom; i++) {
    const y = Math.round(toY(camera, box, i)) - 0.5;
    context.moveTo(toX(camera, box, left), y);
    context.lineTo(toX(camera, box, right), y);
  }
  context.stroke();
  if (camera.scale < READABLE) return;
  const hidden = new Set(style.hidden);
  context.font = `11px ${MONO}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let i = top; i < bottom; i++) {
    for (let j = left; j < right; j++) {
      const tile = tiles.peek(at, z, Math.floor(j / SIDE), Math.floor(i / SIDE));
      if (!tile?.data || hidden.has(j)) continue;
      const shown = tile.data.mass[(i % SIDE) * tile.data.columns + (j % SIDE)] ?? 0;
      if (shown === 0) continue;
      context.fillStyle = inkOn(shade(shown, style), style);
      context.fillText(compact(shown), toX(camera, box, j + 0.5), toY(camera, box, i + 0.5));
    }
  }
}

/** Text on a colour of the ramp: the ink that stands off from it. */
function inkOn(t: number, style: Style): string {
  if (style.palette.dark) return t > 0.52 ? "#0e1013" : "#e8e6e1";
  return t > 0.48 ? "#ffffff" : "#1d2126";
}

/** As `digits`, in the width of a cell: .0231, 4.1e-6 keeps three digits as 4.10e-6. */
export function compact(v: number): string {
  return digits(v).replace(/^0\./, ".");
}

function paintMarks(context: CanvasRenderingContext2D, scene: Scene, box: Box): void {
  const { camera, chosen, hover, style, size } = scene;
  const { palette } = style;
  const cell = camera.scale;
  const end = { x: toX(camera, box, size.m), y: toY(camera, box, size.n) };
  context.fillStyle = palette.chosen;
  context.strokeStyle = palette.chosen;
  if (chosen.row !== null) {
    const y = toY(camera, box, chosen.row);
    context.globalAlpha = 0.75;
    if (cell >= 6) context.strokeRect(box.left - 2, y - 0.5, Math.min(box.width + 4, end.x - box.left + 2), cell + 1);
    else context.fillRect(box.left, y + cell / 2 - 0.5, Math.min(box.width, end.x - box.left), 1);
  }
  if (chosen.column !== null) {
    const x = toX(camera, box, chosen.column);
    context.globalAlpha = 0.75;
    if (cell >= 6) context.strokeRect(x - 0.5, box.top - 2, cell + 1, Math.min(box.height + 4, end.y - box.top + 2));
    else context.fillRect(x + cell / 2 - 0.5, box.top, 1, Math.min(box.height, end.y - box.top));
  }
  context.globalAlpha = 1;
  if (chosen.row !== null && chosen.column !== null) {
    const grow = Math.max(0, 9 - cell) / 2;
    context.lineWidth = 2;
    const [x, y] = [toX(camera, box, chosen.column) - grow, toY(camera, box, chosen.row) - grow];
    context.strokeRect(x, y, cell + 2 * grow, cell + 2 * grow);
    context.lineWidth = 1;
  }
  if (hover && cell >= 6) {
    context.strokeStyle = palette.ink;
    context.strokeRect(toX(camera, box, hover.column) + 0.5, toY(camera, box, hover.row) + 0.5, cell - 1, cell - 1);
  }
}

function paintTracks(context: CanvasRenderingContext2D, scene: Scene, box: Box): void {
  const { tracks, camera, style, size } = scene;
  if (!tracks) return;
  const { palette } = style;
  const narrow = box.left < LABELS + TRACK;
  const wide = narrow ? 24 : TRACK;
  const hidden = new Set(style.hidden);
  const columns = binned(tracks.received, size.m, box.width, (x) => toColumn(camera, box, box.left + x), hidden);
  const rows = binned(tracks.entropy, size.n, box.height, (y) => toRow(camera, box, box.top + y), new Set());
  context.fillStyle = palette.track;
  for (let x = 0; x < columns.values.length; x++) {
    const v = columns.values[x] ?? 0;
    // Attention received runs over decades: its track is always logarithmic, three of them below the most in view.
    const t = v > 0 ? Math.max(0, 1 + Math.log10(v / columns.most) / 3) : 0;
    const h = t * (TRACK - 6);
    if (h > 0) context.fillRect(box.left + x, box.top - 3 - h, 1, h);
  }
  for (let y = 0; y < rows.values.length; y++) {
    const w = (Math.max(0, rows.values[y] ?? 0) / (rows.most || 1)) * (wide - 6);
    if (w > 0) context.fillRect(box.left - 3 - w, box.top + y, w, 1);
  }
}

/** The largest of what falls into each pixel. */
function binned(
  values: Float32Array,
  length: number,
  pixels: number,
  at: (pixel: number) => number,
  skip: Set<number>,
): { values: Float32Array; most: number } {
  const found = new Float32Array(Math.max(0, Math.floor(pixels)));
  let most = 0;
  for (let x = 0; x < found.length; x++) {
    const from = Math.max(0, Math.floor(at(x)));
    const to = Math.min(length, Math.max(from + 1, Math.ceil(at(x + 1))));
    if (at(x + 1) <= 0 || at(x) >= length) continue;
    let v = 0;
    for (let i = from; i < to; i++) if (!skip.has(i)) v = Math.max(v, values[i] ?? 0);
    found[x] = v;
    most = Math.max(most, v);
  }
  return { values: found, most };
}

function paintAxes(context: CanvasRenderingContext2D, scene: Scene, box: Box): void {
  const { camera, style, rowText, columnText, rowStart, columnStart, found, tracks, chosen } = scene;
  const { palette } = style;
  const { left, right, top, bottom } = seen(scene, box);
  const narrow = box.left < LABELS + TRACK;
  const edge = box.left - (narrow ? 24 : TRACK) - 4;
  context.textBaseline = "middle";
  const cell = camera.scale;
  if (cell >= 15 && rowText.length) {
    context.font = `12px ${FONT}`;
    context.textAlign = "right";
    for (let i = top; i < bottom; i++) {
      const y = toY(camera, box, i + 0.5);
      if (y < box.top || y > box.top + box.height) continue;
      context.fillStyle = i === chosen.row ? palette.chosen : palette.ink;
      context.fillText(fitted(context, visible(rowText[i] ?? ""), edge - 2), edge, y);
    }
  } else {
    context.font = `11px ${FONT}`;
    context.textAlign = "right";
    context.fillStyle = palette.soft;
    const step = stepOf(56 / cell);
    for (let i = Math.ceil((top + rowStart) / step) * step; i < bottom + rowStart; i += step) {
      const y = toY(camera, box, i - rowStart + 0.5);
      if (y > box.top + 6 && y < box.top + box.height - 4) context.fillText(count(i), edge, y);
    }
  }
  const line = box.top - TRACK - TOP_LABELS / 2 - 1;
  context.textAlign = "center";
  if (cell >= 30 && columnText.length) {
    context.font = `12px ${FONT}`;
    for (let j = left; j < right; j++) {
      const x = toX(camera, box, j + 0.5);
      if (x < box.left || x > box.left + box.width) continue;
      context.fillStyle = j === chosen.column ? palette.chosen : palette.ink;
      context.fillText(fitted(context, visible(columnText[j] ?? ""), cell - 3), x, line);
    }
  } else {
    context.font = `11px ${FONT}`;
    context.fillStyle = palette.soft;
    const step = stepOf(84 / cell);
    for (let j = Math.ceil((left + columnStart) / step) * step; j < right + columnStart; j += step) {
      const x = toX(camera, box, j - columnStart + 0.5);
      if (x > box.left + 12 && x < box.left + box.width - 16) context.fillText(count(j), x, line);
      else if (x >= box.left && x <= box.left + 12) context.fillText(count(j), Math.max(x, box.left + 4), line);
    }
  }
  if (!narrow) {
    context.font = `10.5px ${FONT}`;
    context.fillStyle = palette.soft;
    context.textAlign = "right";
    context.fillText("received ▸", box.left - 6, box.top - TRACK / 2 - 8);
    if (tracks) context.fillText("entropy ▾", box.left - 6, box.top - TRACK / 2 + 8);
  }
  context.fillStyle = palette.found;
  for (const i of found.rows) {
    if (i >= top && i < bottom) context.fillRect(box.left - 4, toY(camera, box, i), 4, Math.max(2, cell));
  }
  for (const j of found.columns) {
    if (j >= left && j < right) context.fillRect(toX(camera, box, j), box.top - 4, Math.max(2, cell), 4);
  }
}

/** 1, 2 or 5 times a power of ten, at least as large. */
function stepOf(least: number): number {
  const unit = 10 ** Math.floor(Math.log10(Math.max(1, least)));
  return unit * ([1, 2, 5, 10].find((s) => s * unit >= least) ?? 10);
}

/** A token as one can see it: line ends and lone spaces show. */
export function visible(token: string): string {
  const shown = token.replace(/\r?\n/g, "↵").replace(/\t/g, "⇥");
  return shown.trim() === "" ? shown.replace(/ /g, "␣") : shown.trim();
}

function fitted(context: CanvasRenderingContext2D, text: string, width: number): string {
  if (context.measureText(text).width <= width) return text;
  let cut = [...text];
  while (cut.length > 1 && context.measureText(`${cut.join("")}…`).width > width) cut = cut.slice(0, -1);
  return `${cut.join("")}…`;
}

/** The numbers of the cell under a point, at the level that is drawn; null where its tile is not there yet. */
export function cellAt(scene: Scene, row: number, column: number) {
  const { size, at, tiles, camera, ratio } = scene;
  const { z, block } = level(camera, size, ratio);
  const [x, y] = [Math.floor(column / block / SIDE), Math.floor(row / block / SIDE)];
  const tile: Tile | null = tiles.peek(at, z, x, y);
  if (!tile?.data) return null;
  const [r, c] = [Math.floor(row / block) - y * SIDE, Math.floor(column / block) - x * SIDE];
  if (r >= tile.data.known) return null;
  const index = r * tile.data.columns + c;
  const first = { row: Math.floor(row / block) * block, column: Math.floor(column / block) * block };
  const tall = inside(block, first.row, size.n);
  const wide = inside(block, first.column, size.m);
  return {
    block,
    tall,
    wide,
    ...first,
    mass: value(tile.data, index, "mass", tall * wide),
    mean: value(tile.data, index, "mean", tall * wide),
    max: value(tile.data, index, "max", tall * wide),
  };
}
