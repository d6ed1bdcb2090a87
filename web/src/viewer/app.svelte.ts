// What the whole page knows: the traces, the view, and what belongs to each pane.

import * as api from "./api";
import { type Place, type View, inAddress, initial, read, written } from "./address";
import { CLOSEST } from "./camera";
import { Tiles } from "./tiles";

export const view: View = $state(initial());
class Known {
  traces: api.Trace[] = $state.raw([]);
  overviews: Readonly<Record<number, api.Overview>> = $state.raw({});
  texts: Readonly<Record<string, string[]>> = $state.raw({});
  failed: string | null = $state(null);
  dark = $state(false);
}

export const known = new Known();

/** One pane's own things. `version` rises whenever there is something new to draw. */
export class Pane {
  version = $state(0);
  tracks: api.Tracks | null = $state.raw(null);
  row: Float32Array | null = $state.raw(null);
  column: Float32Array | null = $state.raw(null);
  error: string | null = $state(null);
  progress: number | null = $state(null);
  width = 0;
  height = 0;
  readonly tiles = new Tiles((head) => this.arrived(head));
  private head = "";
  private asked = { row: "", column: "" };
  private surveying = false;

  constructor(readonly number: number) {}

  get at(): api.At | null {
    return view.panes[this.number] ?? null;
  }

  /** Ask for what belongs to the head that is shown, once for each. */
  show(): void {
    const at = this.at;
    const call = at && callOf(at);
    if (!at || !call) return;
    const head = api.key(at);
    if (head === this.head) return;
    this.head = head;
    this.tracks = this.row = this.column = this.error = null;
    this.asked = { row: "", column: "" };
    this.version += 1;
    void this.loadTracks(at, head, call.m);
  }

  /** Ask for the weights of the row and column that are chosen. */
  choose(): void {
    const at = this.at;
    const call = at && callOf(at);
    if (!at || !call) return;
    for (const side of ["row", "column"] as const) {
      const i = view[side];
      const id = `${api.key(at)}:${i}`;
      if (this.asked[side] === id) continue;
      this.asked[side] = id;
      this[side] = null;
      if (i === null || i >= (side === "row" ? call.n : call.m)) continue;
      api[side](at, i).then(
        (found) => {
          if (this.asked[side] === id) this[side] = found;
        },
        (error: unknown) => this.fail(error),
      );
    }
  }

  private fail(error: unknown): void {
    this.error = error instanceof Error ? error.message : String(error);
  }

  private async loadTracks(at: api.At, head: string, m: number): Promise<void> {
    try {
      const tracks = await api.tracks(at, m);
      if (this.head !== head) return;
      this.tracks = tracks;
      this.version += 1;
      if (!tracks) await this.survey(at, head, m);
    } catch (error) {
      if (this.head === head) this.fail(error);
    }
  }

  private arrived(head: string): void {
    if (head !== this.head) return;
    const at = this.at;
    this.version += 1;
    if (!at) return;
    numbers(at.trace);
    this.error = this.tiles.error(at) ?? this.error;
    const call = callOf(at);
    if (call && this.tiles.incomplete(at)) void this.survey(at, head, call.m).catch((error: unknown) => this.fail(error));
  }

  /** Have the server look over the whole head, as long as this head is shown and something of it is missing. */
  private async survey(at: api.At, head: string, m: number): Promise<void> {
    if (this.surveying) return;
    this.surveying = true;
    try {
      for (let turn = 1; this.head === head; turn++) {
        const { done, of } = await api.survey(at);
        this.progress = done / of;
        if (done >= of || turn % 4 === 0) {
          this.tiles.refresh(at);
          this.version += 1;
        }
        if (done >= of) {
          if (!this.tracks && this.head === head) this.tracks = await api.tracks(at, m);
          break;
        }
      }
    } finally {
      this.surveying = false;
      this.progress = null;
      this.version += 1;
    }
  }
}

export const panes: Pane[] = [0, 1, 2, 3].map((number) => new Pane(number));

export function moduleOf(at: api.At): api.Module | null {
  return known.traces[at.trace]?.modules[at.layer] ?? null;
}

export function callOf(at: api.At): api.Call | null {
  return moduleOf(at)?.calls[at.call] ?? null;
}

/** The texts along a head's rows and columns, in full: positions count from their first token. */
export function textsOf(at: api.At): { rows: string[]; columns: string[] } {
  const trace = known.traces[at.trace];
  const kind = moduleOf(at)?.kind;
  const own = known.texts[`${at.trace}/tokens/${at.batch}`] ?? [];
  const source = trace?.source ? (known.texts[`${at.trace}/source/${at.batch}`] ?? []) : own;
  return { rows: kind === "encoder" ? source : own, columns: kind === "decoder" ? own : source };
}

export function startsOf(at: api.At): { row: number; column: number } {
  const call = callOf(at);
  return { row: call?.query ?? 0, column: call?.key ?? 0 };
}

/** A list from an entry on: itself where that is the first, so that what is worked out of it once serves again. */
export function after(list: string[], start: number): string[] {
  return start ? list.slice(start) : list;
}

/** Columns that are sinks of this head's kind. */
export function sinksOf(at: api.At): number[] {
  const kind = moduleOf(at)?.kind;
  const start = startsOf(at).column;
  const call = callOf(at);
  const positions = (kind && known.overviews[at.trace]?.sinks[kind]) || [];
  return positions.map((p) => p - start).filter((j) => j >= 0 && call !== null && j < call.m);
}

export function hiddenOf(at: api.At): number[] {
  return view.sinks ? [] : sinksOf(at);
}

let place = inAddress;

/** Keep the view elsewhere than in the page's address. */
export function keptIn(other: Place): void {
  place = other;
}

export async function start(): Promise<void> {
  Object.assign(view, read(place.said()));
  try {
    known.traces = await api.traces();
  } catch (error) {
    known.failed = error instanceof Error ? error.message : String(error);
    return;
  }
  const shown = view.panes.filter((at) => callOf(at) && moduleOf(at)?.heads.includes(at.head));
  view.panes = shown.length ? shown : known.traces.slice(0, 2).map((_, trace) => first(trace));
  view.active = Math.min(view.active, view.panes.length - 1);
  prepare();
}

/** The first head of a trace that can be shown; of a malformed one its error is. */
function first(trace: number): api.At {
  const modules = known.traces[trace]?.modules ?? [];
  const layer = Math.max(0, modules.findIndex((module) => module.kept));
  return { trace, layer, head: modules[layer]?.heads[0] ?? 0, call: 0, batch: 0 };
}

/** Ask for the texts of the traces that are shown. */
export function prepare(): void {
  for (const at of view.panes) {
    const trace = known.traces[at.trace];
    if (!trace || trace.error) continue;
    for (const which of ["tokens", "source"] as const) {
      const id = `${at.trace}/${which}/${at.batch}`;
      if (trace[which] && !(id in known.texts)) {
        known.texts = { ...known.texts, [id]: [] };
        void api.text(at.trace, which, at.batch).then((pieces) => (known.texts = { ...known.texts, [id]: pieces }));
      }
    }
  }
}

/** Ask for the numbers of a trace's heads; once, and after its first tile, which they would keep waiting. */
function numbers(trace: number): void {
  if (trace in known.overviews) return;
  known.overviews = { ...known.overviews, [trace]: { heads: [], sinks: {} } };
  void api.overview(trace).then((found) => (known.overviews = { ...known.overviews, [trace]: found }));
}

let pending = 0;

/** The address says what is seen; it is written when things have settled for a moment. */
export function remember(): void {
  const text = written(view);
  clearTimeout(pending);
  pending = window.setTimeout(() => place.keep(text), 150);
}

/** An address that was pasted or changed by hand. */
export function revisit(): void {
  if (place !== inAddress || location.hash.slice(1) === written(view)) return;
  const said = read(location.hash);
  if (!said.panes.length) said.panes = view.panes;
  Object.assign(view, said);
  prepare();
}

export function activePane(): Pane | null {
  return panes[view.active] ?? null;
}

export function change(number: number, to: Partial<api.At>): void {
  const at = view.panes[number];
  if (!at) return;
  const before = callOf(at);
  const next = { ...at, ...to };
  const module = known.traces[next.trace]?.modules[next.layer];
  if (module) {
    if (!module.heads.includes(next.head)) next.head = module.heads[0] ?? 0;
    next.call = Math.min(next.call, module.calls.length - 1);
  }
  view.panes[number] = next;
  const after = callOf(next);
  if (view.panes.length === 1 && before && after && (before.n !== after.n || before.m !== after.m)) {
    view.camera = { column: 0, row: 0, scale: 0 };
    view.row = view.column = null;
  }
  prepare();
}

/** The next or the last head, or layer, of the active pane. */
export function step(what: "head" | "layer", by: 1 | -1): void {
  const at = view.panes[view.active];
  const trace = at && known.traces[at.trace];
  if (!at || !trace) return;
  if (what === "layer") {
    const layer = at.layer + by;
    if (layer >= 0 && layer < trace.modules.length) change(view.active, { layer });
    return;
  }
  const heads = moduleOf(at)?.heads ?? [];
  const place = heads.indexOf(at.head) + by;
  const head = heads[place];
  if (head !== undefined) change(view.active, { head });
}

export function compare(): void {
  const at = view.panes[view.active];
  if (!at || view.panes.length >= 4) return;
  const unseen = known.traces.findIndex((_, trace) => !view.panes.some((pane) => pane.trace === trace));
  view.panes.push(unseen >= 0 ? first(unseen) : { ...at });
  view.active = view.panes.length - 1;
  prepare();
}

export function close(number: number): void {
  view.panes.splice(number, 1);
  view.active = Math.min(view.active, view.panes.length - 1);
}

/** Choose a row or column and bring it into view, as close as words can be read if `near`. */
export function go(row: number | null, column: number | null, near: boolean): void {
  view.row = row;
  view.column = column;
  if (near) {
    view.camera = {
      row: (row ?? view.camera.row) + 0.5,
      column: (column ?? view.camera.column) + 0.5,
      scale: CLOSEST * 0.8,
    };
  } else if (view.camera.scale > 0) {
    view.camera = {
      ...view.camera,
      row: row === null ? view.camera.row : row + 0.5,
      column: column === null ? view.camera.column : column + 0.5,
    };
  }
}

/** The key that a row looks at most, hidden ones left out. */
export function strongest(weights: Float32Array, hidden: readonly number[], most: number): [number, number][] {
  const skip = new Set(hidden);
  const best: [number, number][] = [];
  for (let j = 0; j < weights.length; j++) {
    const w = weights[j] ?? 0;
    if (w <= 0 || skip.has(j)) continue;
    if (best.length < most || w > (best[best.length - 1]?.[1] ?? 0)) {
      let at = best.length;
      while (at > 0 && (best[at - 1]?.[1] ?? 0) < w) at--;
      best.splice(at, 0, [j, w]);
      if (best.length > most) best.pop();
    }
  }
  return best;
}
