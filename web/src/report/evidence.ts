// From what is selected in the produced text to its sources, at any granularity.

import { LEVELS, type Attention, type Level, type Measure, type Report, type Unit } from "./data";
import { apart, owners, spansOf, type Span } from "./spans";

export interface Source extends Span {
  document: number;
  values: Record<string, number>;
  /** A token that lies nowhere in the text, as it is written in the vocabulary. */
  outside?: string;
  sink: boolean;
}

export interface Found {
  sources: Source[];
  supported: boolean | null;
  /** The level whose evidence this is, where it isn't the one that was asked for. */
  from: Level | null;
  /** How many units the numbers are of. */
  parts: number;
}

const MOST = 12;

export class Evidence {
  private readonly cache = new Map<string, Int32Array>();
  private readonly spans = new Map<string, Span[]>();

  constructor(private readonly report: Report) {}

  /** What can be selected at a level. */
  pieces(level: Level): Span[] {
    return this.once(this.spans, `produced ${level}`, () => apart(spansOf(this.report.produced, level)));
  }

  /** The heads, by number, whose sources are in the page; null stands for all of them together. */
  get heads(): (number | null)[] {
    return this.report.attention?.links.map((links) => links.head) ?? [];
  }

  of(piece: number, level: Level, head: number | null, withSinks: boolean): Found {
    const selected = this.pieces(level)[piece];
    if (!selected) return { sources: [], supported: null, from: null, parts: 0 };
    const found = this.report.attention
      ? this.ofTokens(this.report.attention, piece, level, head, withSinks)
      : this.ofUnits(selected, piece, level);
    const main = this.report.measures[0]!.name;
    found.sources.sort((a, b) => (b.values[main] ?? 0) - (a.values[main] ?? 0));
    found.sources.splice(MOST);
    return found;
  }

  // -- results of tasks: units with references

  private ofUnits(selected: Span, piece: number, level: Level): Found {
    const { units, from } = this.unitsOf(selected, piece, level);
    const sources = new Map<string, Source>();
    for (const unit of units) {
      for (const reference of unit.references) {
        const place = this.placeOf(reference, level);
        const key = `${reference.document} ${place.start} ${place.end}`;
        const source = sources.get(key) ?? { ...place, document: reference.document, values: {}, sink: false };
        sources.set(key, source);
        for (const measure of this.report.measures) {
          const value = reference[measure.name];
          if (value !== undefined) source.values[measure.name] = pooled(measure, source.values, value, units.length);
        }
      }
    }
    const supported = units.some((u) => u.supported === false) ? false : (units[0]?.supported ?? null);
    return { sources: [...sources.values()], supported, from, parts: units.length };
  }

  /** The units of a piece: those at its level, else the coarsest finer ones in it, else the one that it lies in. */
  private unitsOf(selected: Span, piece: number, level: Level): { units: Unit[]; from: Level | null } {
    const rank = LEVELS.indexOf(level);
    for (let finer = rank; finer >= 0; finer--) {
      const from = LEVELS[finer]!;
      const there = this.report.units.filter((unit) => unit.level === from);
      if (!there.length) continue;
      const owner = this.once(this.cache, `units ${from} ${level}`, () => owners(there, this.pieces(level)));
      const units = there.filter((_, i) => owner[i] === piece);
      if (units.length) return { units, from: finer === rank ? null : from };
    }
    const around = this.report.units
      .filter((unit) => unit.start <= selected.start && unit.end >= selected.end && LEVELS.indexOf(unit.level) > rank)
      .sort((a, b) => a.end - a.start - (b.end - b.start));
    return { units: around.slice(0, 1), from: around[0]?.level ?? null };
  }

  /** A reference at the level asked for, or as it was measured where that is coarser. */
  private placeOf(reference: Span & { document: number }, level: Level): Span {
    const spans = this.once(this.spans, `${reference.document} ${level}`, () =>
      spansOf(this.report.documents[reference.document]!, level),
    );
    const piece = spans[owners([reference], spans)[0]!];
    const inside = piece && piece.start <= reference.start && piece.end >= reference.end;
    return inside ? piece : { start: reference.start, end: reference.end };
  }

  // -- traces: tokens with links

  private ofTokens(a: Attention, piece: number, level: Level, head: number | null, withSinks: boolean): Found {
    const links = a.links.find((l) => l.head === head) ?? a.links[0];
    const { produced, documents } = this.report;
    const document = documents[0]!;
    const rowOwner = this.once(this.cache, `rows ${level}`, () =>
      owners(spansOf(produced, "token"), this.pieces(level)),
    );
    const keyPieces = this.once(this.spans, `keys ${level}`, () => apart(spansOf(document, level)));
    const keyTokens = this.once(this.spans, "keys", () => spansOf(document, "token"));
    const keyOwner = this.once(this.cache, `keys ${level}`, () => owners(keyTokens, keyPieces));
    const rows: number[] = [];
    rowOwner.forEach((owner, row) => owner === piece && rows.push(row));
    const sources = new Map<string, Source>();
    for (const row of links ? rows : []) {
      for (let at = row * links!.k; at < (row + 1) * links!.k; at++) {
        const key = links!.keys[at]!;
        const sink = a.sinks.includes(key);
        if (key < 0 || (sink && !withSinks)) continue;
        const owner = keyOwner[key]!;
        const name = owner < 0 ? `token ${key}` : `${owner}`;
        const outside = a.outside.keys[key];
        const place = keyPieces[owner] ?? keyTokens[key]!;
        const source = sources.get(name) ?? { ...place, document: 0, values: { [a.measure]: 0 }, outside, sink };
        sources.set(name, source);
        source.sink ||= sink;
        source.values[a.measure]! += links!.weights[at]! / rows.length;
      }
    }
    return { sources: [...sources.values()], supported: null, from: null, parts: rows.length };
  }

  private once<T>(where: Map<string, T>, key: string, make: () => T): T {
    const known = where.get(key) ?? make();
    where.set(key, known);
    return known;
  }
}

function pooled(measure: Measure, values: Record<string, number>, value: number, parts: number): number {
  const before = values[measure.name];
  if (measure.pool === "max") return before === undefined ? value : Math.max(before, value);
  return (before ?? 0) + value / parts;
}

/** How strong a source is beside the strongest: what colours, underlines and bars show. */
export function strengths(sources: readonly Source[], main: string): number[] {
  const most = Math.max(...sources.map((source) => source.values[main] ?? 0), 0);
  return sources.map((source) => (most > 0 ? Math.max(0, source.values[main] ?? 0) / most : 0));
}

export const grade = (strength: number): string =>
  strength > 2 / 3 ? "strong" : strength > 1 / 3 ? "clear" : strength > 0.1 ? "some" : "little";
