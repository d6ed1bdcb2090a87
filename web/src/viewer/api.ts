// What the page asks of the server, under its own address, and the shapes of the answers.

export interface Call {
  batch: number;
  n: number;
  m: number;
  /** Position of the first query, where the model told; and of the first key. */
  query: number | null;
  key: number;
}

export type Kind = "encoder" | "decoder" | "cross";

export interface Module {
  name: string;
  kind: Kind;
  heads: number[];
  kept: boolean;
  calls: Call[];
}

export interface Trace {
  name: string;
  error?: string;
  model: string | null;
  tokens: number | null;
  source: number | null;
  modules: Module[];
}

export interface HeadNumbers {
  entropy: number | null;
  sink: number | null;
  sink_key: number | null;
  local: number | null;
  retrieval: number | null;
}

export interface Overview {
  heads: HeadNumbers[];
  sinks: Partial<Record<Kind, number[]>>;
}

/** One head of one call of one trace: the module by its place in the trace, the head by the model's number. */
export interface At {
  trace: number;
  layer: number;
  head: number;
  call: number;
  batch: number;
}

/** Sums and maxima of cells; of single weights `largest` is `mass`. Rows from `known` on are still to come. */
export interface TileData {
  rows: number;
  columns: number;
  known: number;
  mass: Float32Array;
  largest: Float32Array;
}

export interface Tracks {
  received: Float32Array;
  entropy: Float32Array;
}

/** What the server says is wrong: it says it in a sentence. */
export class Refused extends Error {}

/** An answer: its status as HTTP's, its bytes, and of a tile its rows, columns and how many rows are known. */
export interface Reply {
  status: number;
  body: ArrayBuffer;
  shape: string;
}

type Send = (path: string, signal?: AbortSignal) => Promise<Reply>;

async function overHttp(path: string, signal?: AbortSignal): Promise<Reply> {
  const answer = await fetch(path, { signal: signal ?? null });
  return { status: answer.status, body: await answer.arrayBuffer(), shape: answer.headers.get("X-Sightline-Tile") ?? "" };
}

let send: Send = overHttp;

/** Ask another way than over HTTP. */
export function through(other: Send): void {
  send = other;
}

async function ask(path: string, signal?: AbortSignal): Promise<Reply> {
  const answer = await send(path, signal);
  if (answer.status >= 300) throw new Refused(words(answer) || `The viewer's server answered ${answer.status}.`);
  return answer;
}

function words(answer: Reply): string {
  return new TextDecoder().decode(answer.body);
}

async function read<T>(path: string): Promise<T> {
  return JSON.parse(words(await ask(path))) as T;
}

function where(at: At, what: string): string {
  return `t/${at.trace}/${at.layer}/${at.head}/${what}?call=${at.call}&batch=${at.batch}`;
}

function floats(answer: Reply): Float32Array {
  return new Float32Array(answer.body);
}

export async function traces(): Promise<Trace[]> {
  type Sent = Omit<Trace, "modules"> & { modules?: (Omit<Module, "calls"> & { calls: (number | null)[][] })[] };
  const sent = await read<Sent[]>("traces");
  return sent.map((trace) => ({
    ...trace,
    modules: (trace.modules ?? []).map((module) => ({
      ...module,
      calls: module.calls.map(([batch, n, m, query, key]) => ({
        batch: batch ?? 1,
        n: n ?? 0,
        m: m ?? 0,
        query: query ?? null,
        key: key ?? 0,
      })),
    })),
  }));
}

export async function text(trace: number, which: "tokens" | "source", batch: number): Promise<string[]> {
  return read(`t/${trace}/text/${which}?batch=${batch}`);
}

export async function overview(trace: number): Promise<Overview> {
  return read(`t/${trace}/heads`);
}

/** 64 × 64 for each head of a module; null where no map was recorded. */
export async function thumbnails(trace: number, layer: number): Promise<Float32Array | null> {
  const answer = await ask(`t/${trace}/${layer}/thumbnails`);
  return answer.status === 204 ? null : floats(answer);
}

export async function tile(at: At, z: number, x: number, y: number, signal: AbortSignal): Promise<TileData> {
  const answer = await ask(where(at, `${z}/${x}/${y}`), signal);
  const [rows = 0, columns = 0, known = 0] = answer.shape.split(" ").map(Number);
  const all = floats(answer);
  const mass = all.subarray(0, rows * columns);
  return { rows, columns, known, mass, largest: all.length > mass.length ? all.subarray(rows * columns) : mass };
}

/** Null where they are not known yet: the survey must go on. */
export async function tracks(at: At, m: number): Promise<Tracks | null> {
  const answer = await ask(where(at, "tracks"));
  if (answer.status === 204) return null;
  const all = floats(answer);
  return { received: all.subarray(0, m), entropy: all.subarray(m) };
}

export async function row(at: At, i: number): Promise<Float32Array> {
  return floats(await ask(where(at, `row/${i}`)));
}

export async function column(at: At, j: number): Promise<Float32Array> {
  return floats(await ask(where(at, `column/${j}`)));
}

/** Have the server go on with looking over a whole head; how far it is. */
export async function survey(at: At): Promise<{ done: number; of: number }> {
  return read(where(at, "survey"));
}

export function key(at: At): string {
  return `${at.trace}/${at.layer}/${at.head}/${at.call}/${at.batch}`;
}
