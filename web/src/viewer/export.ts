// A pane as a picture to keep: the same drawing, twice as fine, with a line that says what it is.

import { count } from "../common/numbers";
import { type Scene, mapBox, paint, seen } from "./paint";

const CAPTION = 44;

export async function png(scene: Scene, width: number, height: number, title: string): Promise<Blob> {
  const ratio = 2;
  const canvas = document.createElement("canvas");
  canvas.width = width * ratio;
  canvas.height = (height + CAPTION) * ratio;
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser draws no pictures.");
  context.scale(ratio, ratio);
  // The tiles that are on screen: those of the screen's own fineness.
  paint(context, width, height, scene);
  const { palette } = scene.style;
  const { left, right, top, bottom } = seen(scene, mapBox(width, height));
  context.fillStyle = palette.paper;
  context.fillRect(0, height, width, CAPTION);
  context.textBaseline = "alphabetic";
  context.font = "600 13px system-ui, sans-serif";
  context.fillStyle = palette.ink;
  context.fillText(title, 12, height + 17, width - 24);
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = palette.soft;
  const { row, column } = { row: scene.rowStart, column: scene.columnStart };
  const where = `queries ${count(top + row)}–${count(bottom - 1 + row)}, keys ${count(left + column)}–${count(right - 1 + column)}`;
  const { measure, scale, decades, top: most } = scene.style;
  const how =
    scale === "log" ? `${measure}, logarithmic over ${decades} decades` : `${measure}, linear to ${(10 ** -most).toPrecision(2)}`;
  context.fillText(`${where} · ${how} · Sightline`, 12, height + 35, width - 24);
  return new Promise((done, failed) => {
    canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("The picture could not be made."))), "image/png");
  });
}

export function download(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
