// Finding words in a text that is cut into tokens: a hit may begin in one token and end in another.

let last: { tokens: readonly string[]; text: string; ends: Int32Array } | null = null;
const results = new WeakMap<readonly string[], { words: string; hits: number[] }>();

function joined(tokens: readonly string[]): { text: string; ends: Int32Array } {
  if (last?.tokens === tokens) return last;
  const ends = new Int32Array(tokens.length);
  let length = 0;
  for (let i = 0; i < tokens.length; i++) {
    length += tokens[i]?.length ?? 0;
    ends[i] = length;
  }
  last = { tokens, text: tokens.join("").toLowerCase(), ends };
  return last;
}

/** The tokens that hits of these words touch, in order; at most 10,000. Case and white space are not told apart. */
export function matches(tokens: readonly string[], words: string): number[] {
  const wanted = words.trim().toLowerCase();
  if (!wanted || !tokens.length) return [];
  const before = results.get(tokens);
  if (before?.words === wanted) return before.hits;
  const { text, ends } = joined(tokens);
  const pattern = wanted.split(/\s+/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const hits: number[] = [];
  let token = 0;
  for (const hit of text.matchAll(new RegExp(pattern.join("\\s+"), "g"))) {
    const [from, to] = [hit.index, hit.index + hit[0].length];
    while (token < ends.length && (ends[token] ?? 0) <= from) token++;
    for (let i = token; i < ends.length && (i ? (ends[i - 1] ?? 0) : 0) < to; i++) {
      if (hits[hits.length - 1] !== i) hits.push(i);
    }
    if (hits.length > 10_000) break;
  }
  results.set(tokens, { words: wanted, hits });
  return hits;
}

/** Hits as runs of neighbouring tokens: the first token of each. */
export function firsts(hits: readonly number[]): number[] {
  return hits.filter((token, i) => i === 0 || token !== (hits[i - 1] ?? -2) + 1);
}
