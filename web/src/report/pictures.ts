// Pictures to take along: each is drawn as SVG, and a PNG is that SVG, drawn at twice its size.

import type { Attention, Measure } from "./data";
import { DECADES, css } from "./colours";
import type { Found } from "./evidence";
import { grid, paint, type Grid } from "./maps";
import { digits, percent } from "../common/numbers";
import { shown } from "./numbers";
import type { Characters } from "./spans";

export type Format = "png" | "svg";

const SANS = "system-ui, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif";
const SERIF = "Charter, Georgia, 'DejaVu Serif', serif";

interface Colours {
  paper: string;
  ink: string;
  soft: string;
  line: string;
  rule: string;
  field: string;
}

const dark = (): boolean => document.documentElement.dataset.theme === "dark";

function colours(): Colours {
  const style = getComputedStyle(document.documentElement);
  const of = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return { paper: of("card"), ink: of("ink"), soft: of("soft"), line: of("line"), rule: of("rule"), field: of("field") };
}

export async function save(svg: string, name: string, format: Format): Promise<void> {
  const blob = format === "svg" ? new Blob([svg], { type: "image/svg+xml" }) : await rasterised(svg);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${name}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function rasterised(svg: string): Promise<Blob> {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = 2 * image.width;
  canvas.height = 2 * image.height;
  canvas.getContext("2d")!.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture could not be made"))), "image/png"),
  );
}

// -- drawing

const escaped = (text: string): string =>
  // eslint-disable-next-line no-control-regex
  text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, " ").replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

interface Style {
  size?: number;
  weight?: number;
  fill: string;
  serif?: boolean;
  anchor?: "start" | "middle" | "end";
}

function words(x: number, y: number, text: string, { size = 13, weight = 400, fill, serif, anchor }: Style): string {
  return (
    `<text x="${x}" y="${y}" font-family="${serif ? SERIF : SANS}" font-size="${size}" font-weight="${weight}" ` +
    `fill="${fill}" text-anchor="${anchor ?? "start"}">${escaped(text)}</text>`
  );
}

const sheet = (width: number, height: number, content: string): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">` +
  `<rect width="${width}" height="${height}" fill="${colours().paper}"/>${content}</svg>`;

/** A text in lines that fit, at most `most` of them. */
function lines(text: string, width: number, size: number, serif: boolean, most: number): string[] {
  const context = document.createElement("canvas").getContext("2d")!;
  context.font = `${size}px ${serif ? SERIF : SANS}`;
  const found: string[] = [];
  let line = "";
  for (const word of text.replace(/\s+/g, " ").trim().split(" ")) {
    const longer = line ? `${line} ${word}` : word;
    if (line && context.measureText(longer).width > width) {
      found.push(line);
      line = word;
    } else line = longer;
  }
  found.push(line);
  if (found.length <= most) return found;
  return [...found.slice(0, most - 1), `${found[most - 1]} …`];
}

interface Shown {
  title: string;
  text: string;
  found: Found;
  strong: number[];
  measures: Measure[];
  texts: Characters[];
  names: string[];
}

/** What is selected, and its sources with their numbers. */
export function evidencePicture({ title, text, found, strong, measures, texts, names }: Shown): string {
  const c = colours();
  const [width, left, inner] = [960, 48, 864];
  const parts: string[] = [];
  let y = 40;
  const put = (line: string, style: Style, x = left) => {
    y += 1.5 * (style.size ?? 13);
    parts.push(words(x, y, line, style));
  };
  for (const line of lines(title, inner, 15, false, 3)) put(line, { size: 15, fill: c.soft });
  y += 6;
  for (const line of lines(text, inner, 24, true, 6)) put(line, { size: 24, weight: 600, fill: c.ink, serif: true });
  if (found.supported === false) put("not supported", { weight: 700, fill: c.ink });
  y += 14;
  found.sources.forEach((source, i) => {
    const values = measures
      .filter((measure) => source.values[measure.name] !== undefined)
      .map((measure) => `${measure.label} ${shown(source.values[measure.name]!, measure.unit)}`);
    if (names[source.document] && !source.outside) values.push(names[source.document]!);
    y += 12;
    const top = y;
    const quoted = source.outside ?? texts[source.document]!.slice(source.start, source.end);
    for (const line of lines(quoted, inner - 48, 17, true, 4))
      put(line, { size: 17, fill: c.ink, serif: true }, left + 48);
    put(values.join("  ·  "), { fill: c.soft }, left + 48);
    y += 8;
    parts.push(
      `<rect x="${left + 48}" y="${y}" width="${inner - 48}" height="4" rx="2" fill="${c.field}"/>`,
      `<rect x="${left + 48}" y="${y}" width="${(inner - 48) * strong[i]!}" height="4" rx="2" fill="${c.rule}"/>`,
      `<circle cx="${left + 16}" cy="${top + 20}" r="15" fill="none" stroke="${c.rule}" stroke-width="2"/>`,
      words(left + 16, top + 25, `${i + 1}`, { size: 14, weight: 600, fill: c.ink, anchor: "middle" }),
    );
    y += 14;
  });
  put("Sightline", { size: 12, fill: c.soft });
  return sheet(width, y + 28, parts.join(""));
}

function bitmap(grid: Grid): string {
  const canvas = document.createElement("canvas");
  paint(canvas, grid, dark());
  return canvas.toDataURL("image/png");
}

const image = (grid: Grid, x: number, y: number, width: number, height: number): string =>
  `<image x="${x}" y="${y}" width="${width}" height="${height}" preserveAspectRatio="none" ` +
  `style="image-rendering:pixelated" href="${bitmap(grid)}"/>`;

/** One head's map, with its tracks and its scale. */
export function mapPicture(attention: Attention, head: number | null, withSinks: boolean, name: string): string {
  const shownGrid = grid(attention, head, withSinks);
  if (!shownGrid || !attention.maps) return sheet(10, 10, "");
  const c = colours();
  const { rows, cols } = attention.maps;
  const [x, y, side] = [84, 84, 640];
  const high = (side * shownGrid.rows) / Math.max(shownGrid.rows, shownGrid.cols);
  const wide = (side * shownGrid.cols) / Math.max(shownGrid.rows, shownGrid.cols);
  const parts = [
    words(x, 44, name, { size: 20, weight: 600, fill: c.ink }),
    words(x, 68, `${cols} keys across and ${rows} queries down for each cell`, { fill: c.soft }),
    image(shownGrid, x, y, wide, high),
    `<rect x="${x}" y="${y}" width="${wide}" height="${high}" fill="none" stroke="${c.line}"/>`,
    words(x - 10, y + 12, "0", { fill: c.soft, anchor: "end" }),
    words(x - 10, y + high, `${shownGrid.rows * rows}`, { fill: c.soft, anchor: "end" }),
    words(x - 10, y + high / 2, "queries", { fill: c.soft, anchor: "end" }),
    words(x, y + high + 20, "0", { fill: c.soft }),
    words(x + wide / 2, y + high + 20, "keys", { fill: c.soft, anchor: "middle" }),
    words(x + wide, y + high + 20, `${shownGrid.cols * cols}`, { fill: c.soft, anchor: "end" }),
    scale(x, y + high + 40, shownGrid.most, c),
  ];
  return sheet(side + 150, y + high + 100, parts.join(""));
}

function scale(x: number, y: number, most: number, c: Colours): string {
  const steps = Array.from({ length: 64 }, (_, i) => i / 63);
  const bars = steps.map((at, i) => `<rect x="${x + 4 * i}" y="${y}" width="4" height="12" fill="${css(at, dark())}"/>`);
  return (
    bars.join("") +
    words(x, y + 30, percent(most / 10 ** DECADES), { size: 12, fill: c.soft }) +
    words(x + 256, y + 30, percent(most), { size: 12, fill: c.soft, anchor: "end" }) +
    words(x + 272, y + 11, "of the attention of a cell's queries, on a logarithmic scale", { size: 12, fill: c.soft })
  );
}

/** Every head's map: layers across, heads down. */
export function headsPicture(attention: Attention, layers: number[], places: Map<string, number>, title: string): string {
  const c = colours();
  const heads = Math.max(...attention.heads.map((head) => head.head)) + 1;
  const [x, y, size, gap] = [64, 92, 44, 5];
  const parts = [
    words(24, 40, title, { size: 20, weight: 600, fill: c.ink }),
    words(24, 64, "one map for each head: layers across, heads down; colours reach from each head's own largest share", {
      fill: c.soft,
    }),
  ];
  layers.forEach((layer, column) => {
    const left = x + column * (size + gap);
    parts.push(words(left + size / 2, y - 8, `${layer}`, { size: 12, fill: c.soft, anchor: "middle" }));
    for (let head = 0; head < heads; head++) {
      const number = places.get(`${layer} ${head}`);
      const own = number === undefined ? null : grid(attention, number, false);
      if (own) parts.push(image(own, left, y + head * (size + gap), size, size));
    }
  });
  for (let head = 0; head < heads; head++)
    parts.push(words(x - 12, y + head * (size + gap) + 28, `${head}`, { size: 12, fill: c.soft, anchor: "end" }));
  return sheet(Math.max(620, x + layers.length * (size + gap) + 24), y + heads * (size + gap) + 24, parts.join(""));
}

/** A track: one number for each block of tokens. */
export function trackPicture(name: string, values: readonly number[], size: number, unit: Measure["unit"]): string {
  const c = colours();
  const [x, y, width, high] = [84, 72, 720, 160];
  const most = Math.max(...values.filter((value) => !Number.isNaN(value)), 0);
  const step = width / values.length;
  const bars = values.map((value, i) => {
    const tall = most > 0 && value > 0 ? (high * value) / most : 0;
    return `<rect x="${x + i * step}" y="${y + high - tall}" width="${Math.max(0.5, step - 0.5)}" height="${tall}" fill="${c.rule}"/>`;
  });
  return sheet(
    x + width + 40,
    y + high + 60,
    [
      words(x, 40, name, { size: 18, weight: 600, fill: c.ink }),
      words(x, 60, `${size === 1 ? "one token" : `${size} tokens`} for each bar`, { size: 12, fill: c.soft }),
      ...bars,
      `<line x1="${x}" x2="${x + width}" y1="${y + high}" y2="${y + high}" stroke="${c.line}"/>`,
      words(x - 8, y + 10, unit === "share" ? percent(most) : digits(most), { size: 12, fill: c.soft, anchor: "end" }),
      words(x - 8, y + high, "0", { size: 12, fill: c.soft, anchor: "end" }),
      words(x, y + high + 20, "token 0", { size: 12, fill: c.soft }),
      words(x + width, y + high + 20, `${values.length * size}`, { size: 12, fill: c.soft, anchor: "end" }),
    ].join(""),
  );
}
