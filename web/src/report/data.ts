// The report as it lies in the page (sightline/report/model.py says what it means), and its packed numbers unpacked.

export type Level = "token" | "word" | "sentence" | "paragraph";
export const LEVELS: readonly Level[] = ["token", "word", "sentence", "paragraph"];

export interface Measure {
  name: string;
  label: string;
  unit: "nats" | "share" | "score";
  meaning: string;
  pool: "mean" | "max";
}

export interface Text {
  name: string;
  text: string;
  /** Of each level the steps from edge to edge: to the start of the first part, its length, to the next start, … */
  levels: Partial<Record<Level, number[]>>;
}

export interface Reference {
  document: number;
  start: number;
  end: number;
  [measure: string]: number;
}

export interface Unit {
  start: number;
  end: number;
  level: Level;
  supported: boolean | null;
  references: Reference[];
}

export interface Fact {
  label: string;
  value: number | string;
  unit: "" | "s" | "bytes" | "nats";
}

export interface Head {
  module: string;
  layer: number;
  head: number;
  entropy: number | null;
  sink: number | null;
  local: number | null;
  retrieval: number | null;
}

export interface Links {
  head: number | null;
  k: number;
  keys: Numbers;
  weights: Numbers;
}

interface PackedLinks {
  heads: (number | null)[];
  k: number[];
  back: string;
  weights: string;
}

interface Packed<Numbers, Lists> {
  kind: "cross" | "decoder" | "encoder";
  heads: Head[];
  maps: { rows: number; cols: number; shape: [number, number, number]; shares: Numbers } | null;
  links: Lists;
  measure: string;
  entropy: Numbers | null;
  received: Numbers | null;
  sinks: number[];
  outside: { queries: Record<string, string>; keys: Record<string, string> };
  first: [number, number] | null;
}

export type Numbers = Float64Array | Float32Array | Int32Array;
export type Attention = Packed<Numbers, Links[]>;

interface Common {
  version: number;
  kind: "answer" | "translation" | "generation" | "summary" | "trace";
  title: string;
  produced: Text;
  documents: Text[];
  units: Unit[];
  measures: Measure[];
  facts: Fact[];
}

export interface Report extends Common {
  attention: Attention | null;
}

export async function read(json: string): Promise<Report> {
  const given = JSON.parse(json) as Common & { attention: Packed<string, PackedLinks> | null };
  if (given.version !== 1) throw new Error(`this page reads reports of version 1; the report is of ${given.version}`);
  const a = given.attention;
  if (!a) return { ...given, attention: null };
  const [shares, entropy, received] = await Promise.all([
    a.maps && thousandths(a.maps.shares),
    a.entropy && floats(a.entropy),
    a.received && floats(a.received),
  ]);
  const links = a.links.heads.length ? await linked(a.links) : [];
  const maps = a.maps && shares ? { ...a.maps, shares } : null;
  return { ...given, attention: { ...a, maps, links, entropy: entropy || null, received: received || null } };
}

async function linked({ heads, k, ...packed }: PackedLinks): Promise<Links[]> {
  const [back, weights] = await Promise.all([integers(packed.back), floats(packed.weights)]);
  const rows = back.length / k.reduce((total, each) => total + each, 0);
  let at = 0;
  return heads.map((head, i) => {
    const from = at;
    at += rows * k[i]!;
    const keys = back.subarray(from, at).map((z, cell) => {
      const row = Math.floor(cell / k[i]!);
      return z < 0 ? -1 : z % 2 ? row + (z + 1) / 2 : row - z / 2;
    });
    return { head, k: k[i]!, keys, weights: weights.subarray(from, at) };
  });
}

// -- numbers: see sightline/report/_packing.py

async function inflated(text: string): Promise<Uint8Array> {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function planes(text: string, size: number): Promise<Int32Array> {
  const bytes = await inflated(text);
  const count = bytes.length / size;
  const codes = new Int32Array(count);
  for (let plane = 0; plane < size; plane++)
    for (let i = 0; i < count; i++) codes[i]! |= bytes[plane * count + i]! << (8 * plane);
  return codes;
}

const integers = async (text: string) => (await planes(text, 3)).map((code) => code - 1);

async function floats(text: string): Promise<Float32Array> {
  const bits = (await planes(text, 3)).map((code) => code << 8);
  return new Float32Array(bits.buffer);
}

async function thousandths(text: string): Promise<Float64Array> {
  const codes = await planes(text, 2);
  // Divided, not multiplied by a power that is no binary number: 123 / 1000 is the number nearest to 0.123.
  return Float64Array.from(codes, (code) => (code % 1000) / 10 ** (Math.floor(code / 1000) + 2));
}
