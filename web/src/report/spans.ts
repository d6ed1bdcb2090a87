// Places in a text. The report counts characters as Python does, by code points; strings here count UTF-16 units.

import { LEVELS, type Level, type Text } from "./data";

export interface Span {
  start: number;
  end: number;
}

export class Characters {
  private readonly starts: Uint32Array | null;

  constructor(private readonly text: string) {
    this.starts = null;
    if (/[\ud800-\udbff][\udc00-\udfff]/.test(text)) {
      const starts: number[] = [];
      let at = 0;
      for (const character of text) {
        starts.push(at);
        at += character.length;
      }
      starts.push(at);
      this.starts = Uint32Array.from(starts);
    }
  }

  get length(): number {
    return this.starts ? this.starts.length - 1 : this.text.length;
  }

  slice(start: number, end: number): string {
    return this.starts ? this.text.slice(this.starts[start], this.starts[end]) : this.text.slice(start, end);
  }
}

export const spansOf = (text: Text, level: Level): Span[] => {
  const steps = text.levels[level] ?? [];
  let at = 0;
  return Array.from({ length: steps.length / 2 }, (_, i) => {
    const start = (at += steps[2 * i]!);
    return { start, end: (at += steps[2 * i + 1]!) };
  });
};

export const levelsOf = (text: Text): Level[] => LEVELS.filter((level) => text.levels[level]?.length);

/** Spans that can stand side by side: without what lies in the one before, and without empty ones. */
export function apart(spans: readonly Span[]): Span[] {
  const found: Span[] = [];
  let after = 0;
  for (const { start, end } of spans) {
    if (end > Math.max(start, after)) found.push({ start: Math.max(start, after), end });
    after = Math.max(after, end);
  }
  return found;
}

/** Of each place the span that holds most of it, the first of several; −1 where none does. Spans are in order. */
export function owners(places: readonly Span[], spans: readonly Span[]): Int32Array {
  return Int32Array.from(places, (place) => {
    let low = 0;
    let high = spans.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (spans[middle]!.end <= place.start) low = middle + 1;
      else high = middle;
    }
    let owner = -1;
    let most = 0;
    for (let i = low; i < spans.length && spans[i]!.start < place.end; i++) {
      const shared = Math.min(place.end, spans[i]!.end) - Math.max(place.start, spans[i]!.start);
      if (shared > most) {
        most = shared;
        owner = i;
      }
    }
    return owner;
  });
}
