// Rows against keys while the log-sum-exp is still moving: products, logits, folds, moments. One pass over the keys.
#pragma once

#include "direct.hpp"
#include "field.hpp"
#include "score.hpp"
#include "state.hpp"
#include "top.hpp"

namespace sightline {
namespace {

constexpr int kGroups = (kRows + kRegisterRows - 1) / kRegisterRows;

// Keys j0 + from ... j0 + to - 1 of a tile are all that some rows admit; whole panels.
struct Span {
    int from, to;
};

struct Scratch {
    void* queries;                    // [kRows, depth] words
    uint32_t* padded;                 // [kDirectRows, .] the same, for keys read as they lie
    char* keys;                       // [kTile, depth] words, where keys are packed tile by tile
    char* values;                     // one moment's tile
    float* tile;                      // [kRows, kTile] logits
    Pair* weights;                    // [kRows, kTile / 2]
    float *highest, *shift, *offset;  // [kRows] of a tile: its largest logit; 2^offset; log2 e^(old - new reference)
    float* maxima;                    // [kTogether, kLanes] the largest logits of parts of a row of a tile
    int* places;                      // of candidates for the lists of largest logits
    int64_t* numbers;                 // [kTogether / kLongs, kTile, kLongs] what they rank as, row beside row
    Span span[kGroups];

    Scratch(const Request& r, Carver& at) {
        long widest = 0;
        for (const Observation& o : r.observations)
            if (o.what == What::moment && up(o.count, kPanel) > widest) widest = up(o.count, kPanel);
        queries = at.take<float>(static_cast<size_t>(kRows * depth(r)));
        padded = at.take<uint32_t>(static_cast<size_t>(kDirectRows * up(depth(r), kLanes)));
        keys = at.take<char>(static_cast<size_t>(4 * kTile * depth(r)));
        values = at.take<char>(static_cast<size_t>(4 * kTile * widest));
        tile = at.take<float>(kRows * kTile);
        weights = at.take<Pair>(kRows * kTile / 2);
        highest = at.take<float>(kRows + kLanes);
        shift = at.take<float>(kRows + kLanes);
        offset = at.take<float>(kRows + kLanes);
        maxima = at.take<float>(kTogether * kLanes);
        places = at.take<int>(kTogether * kTile + kBits);
        numbers = at.take<int64_t>(kTogether * kTile);
    }
};

// What the rows of each register tile admit: outside of it nothing is multiplied, under a causal mask half a tile. Rows
// whose keys are read as they lie stay together.
INLINE void find_spans(const Block& b, int j0, int width, Span* span) {
    const int together = !b.keys && direct(b) ? kRows : kRegisterRows;
    for (int i = 0; i < b.rows; i += kRegisterRows, ++span) {
        int lo = j0 + width, hi = j0;
        for (int k = i / together * together; k < i + together && k < b.rows; ++k) {
            const Row row = b.row[k];
            if (row.lo >= row.hi) continue;
            if (row.lo < lo) lo = row.lo;
            if (row.hi > hi) hi = row.hi;
        }
        span->from = lo > j0 ? (lo - j0) / kPanel * kPanel : 0;
        span->to = hi < j0 + width ? static_cast<int>(up(hi - j0, kPanel)) : width;
        if (span->from >= span->to) span->from = span->to = 0;
    }
}

// Each panel of a row's span: use(where it begins). Whole tiles are unrolled.
template <class Use>
INLINE void by_panels(Span span, Use use) {
    if (span.to - span.from == kTile) {
#pragma GCC unroll 32
        for (int j = 0; j < kTile; j += kPanel) use(j);
    } else {
        for (int j = span.from; j < span.to; j += kPanel) use(j);
    }
}

// The largest of a row's logits, lane by lane; with kCut, also which of them are above `cut`, all of `bits` being 0.
template <bool kCut>
INLINE Floats largest_lanes(const float* x, Span span, float cut, uint16_t* bits) {
    Floats most[2] = {splat(-INFINITY), splat(-INFINITY)};
    by_panels(span, [&](int j) __attribute__((always_inline)) {
        most[0] = larger(load(x + j), most[0]);
        most[1] = larger(load(x + j + kLanes), most[1]);
        if (kCut) set_above(x, j, cut, bits);
    });
    return larger(most[0], most[1]);
}

// Which of a row's logits are above `cut`, all of `bits` being 0.
INLINE void find_above(const float* x, Span span, float cut, uint16_t* bits) {
    by_panels(span, [&](int j) __attribute__((always_inline)) { set_above(x, j, cut, bits); });
}

// The same with a higher cut, where there is one that leaves out none of the k largest.
__attribute__((noinline)) void closer_above(const float* x, Span span, int k, uint16_t* bits) {
    const float bound = at_least(x + span.from, span.to - span.from, k);
    alignas(64) uint16_t fewer[kWords] = {};
    if (bound == -INFINITY) return;
    find_above(x, span, just_below(bound), fewer);
    for (int w = 0; w < kWords; ++w) bits[w] &= fewer[w];
}

// Some rows of a tile, i0 ... i1 - 1, and which of their logits may be among a row's k largest: bits [., kWords].
struct Rows {
    int i0, i1;
    uint16_t* bits;
};

// Fold those into the rows' lists: first all are found, then each round inserts one of every row. tile: the first
// row's.
INLINE void fold_top(const Block& b, const Scratch& at, const Rows& rows, int j0, const float* tile, int k) {
    alignas(64) int words[kTogether * kWords + kBits];
    int next[kTogether];  // where a row's numbers go, were all candidates of the rows before it its own too
    int rounds[kTogether / kLongs], full = 0, total = 0;
    const int parts = (rows.i1 - rows.i0 + kLongs - 1) / kLongs;
    for (int part = 0; part < parts; ++part) {
        int most = 0;
        for (int lane = 0; lane < kLongs; ++lane) {
            const int c = part * kLongs + lane, i = rows.i0 + c;
            uint16_t* mine = rows.bits + c * kWords;
            int count = count_bits(mine);
            if (count > 2 * k + kBits) {
                closer_above(tile + c * kTile, at.span[i / kRegisterRows], k, mine);
                count = count_bits(mine);
            }
            full += list_bits(any(mine), c * kWords, words + full);
            next[c] = (part * kTile - total) * kLongs + lane;
            total += count;
            most = count > most ? count : most;
        }
        rounds[part] = most;
        for (int64_t *x = at.numbers + part * kTile * kLongs, *end = x + most * kLongs; x < end; x += kLongs)
            store(x, kNone - Longs{});
    }
    if (!total) return;
    int* place = at.places;
    for (int w = 0; w < full; ++w) place += list_bits(rows.bits[words[w]], words[w] * kBits, place);
    for (int f = 0; f < total; ++f) {
        const unsigned where = static_cast<unsigned>(at.places[f]);
        at.numbers[next[where / kTile] + f * kLongs] = ranked(tile[where], j0 + static_cast<int>(where % kTile));
    }
    for (int part = 0; part < parts; ++part)
        insert_all(b.state.top + listed(rows.i0 + part * kLongs, 0, k), k, at.numbers + part * kTile * kLongs,
                   rounds[part]);
}

// What may be among a row's k largest, where its largest logit is above its list's last. bound: that many are no
// smaller.
INLINE void find_candidates(const Scratch& at, const Rows& rows, const float* tile, const float* last,
                            const float* bound) {
    for (int i = rows.i0; i < rows.i1; ++i) {
        const int c = i - rows.i0;
        if (!(at.highest[i] > last[c])) continue;
        // Equals of the list's last come later and lose; equals of a bound may be among the largest.
        const float cut = bound && bound[c] > last[c] ? just_below(bound[c]) : last[c];
        find_above(tile + c * kTile, at.span[i / kRegisterRows], cut, rows.bits + c * kWords);
    }
}

// The largest logit of each row of a tile, and lists of more of them. before: how many tiles have been folded.
INLINE void fold_largest(const Block& b, const Folds& folds, const Scratch& at, int j0, const float* tile, int before) {
    const int k = folds.top;
    const bool bounded = !before && k > 1 && k <= kLanes, early = k && before && before < kEarly;
    for (int i0 = 0; i0 < b.rows; i0 += kTogether) {
        alignas(64) uint16_t bits[kTogether * kWords];
        float last[kTogether], bound[kTogether];
        const Rows rows{i0, i0 + kTogether < b.rows ? i0 + kTogether : b.rows, bits};
        const float* mine = tile + i0 * kTile;
        if (k) std::memset(bits, 0, sizeof bits);
        bool some = false;
        for (int c = 0; c < rows.i1 - i0; ++c) {
            const Span span = at.span[(i0 + c) / kRegisterRows];
            if (k) last[c] = logit_of(b.state.top[listed(i0 + c, k - 1, k)]);
            const Floats most = early ? largest_lanes<true>(mine + c * kTile, span, last[c], bits + c * kWords)
                                      : largest_lanes<false>(mine + c * kTile, span, 0, nullptr);
            if (bounded) store(at.maxima + c * kLanes, most);
            at.highest[i0 + c] = largest(most);
            some |= k && at.highest[i0 + c] > last[c];
        }
        if (!some) continue;
        if (bounded)  // at least k logits are no smaller than the k-th of the maxima of kLanes parts
            for (int c = 0; c < rows.i1 - i0; c += kLanes) sorted_at(at.maxima + c * kLanes, k, bound + c);
        if (!early) find_candidates(at, rows, mine, last, bounded ? bound : nullptr);
        fold_top(b, at, rows, j0, mine, k);
    }
}

// Move the references up to the tile's largest logits; shift and offset are 0 for rows as yet empty.
INLINE void move_references(const Block& b, const Scratch& at, float unit) {
    float* reference = b.state.reference;
    for (int i = 0; i < b.rows; i += kLanes) {
        const Floats old = load(reference + i), now = larger(old, load(at.highest + i));
        const Ints empty = old == splat(-INFINITY);
        const Floats offset = pick(empty, Floats{}, (old - now) * unit);
        store(reference + i, now);
        store(at.offset + i, offset);
        store(at.shift + i, pick(empty, Floats{}, power_of_2(offset)));
    }
}

// One row of a tile: logits give e^(s - reference), as floats that are kept (maybe in their place), as pairs or both;
// mass and slope absorb them. kBounded: no logit is -inf, or as good as that.
template <bool kSlope, bool kBounded, bool kPaired, bool kKept>
INLINE void exponentials(const float* x, float* kept, Pair* pairs, int width, float unit, float reference, float shift,
                         float offset, float* mass, float* slope) {
    const Floats base = splat(reference == -INFINITY ? 0.0f : reference);
    Floats sums[2] = {}, slopes[2] = {};
    for (int j = 0; j < width; j += kPanel) {
        Floats e[2];
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            const Floats below = (load(x + j + half * kLanes) - base) * unit;
            e[half] = power_of_2(below);
            sums[half] += e[half];
            // 0 times -inf would not be 0
            if (kSlope) slopes[half] = fma(kBounded ? below : larger(splat(-150.0f), below), e[half], slopes[half]);
            if (kKept) store(kept + j + half * kLanes, e[half]);
        }
        if (kPaired) store_pairs(pairs + j / 2, e[0], e[1]);
    }
    const Floats before = load(mass);
    if (kSlope) {  // an affine map: t becomes e^d (t + d l)
        const Floats moved = fma(before, splat(offset), load(slope));
        store(slope, fma(moved, splat(shift), slopes[0] + slopes[1]));
    }
    store(mass, fma(before, splat(shift), sums[0] + sums[1]));
}

template <bool kSlope, bool kPaired, bool kKept>
__attribute__((noinline)) void all_exponentials(const Block& b, const Scratch& at, float unit, int j0, float* weights) {
    const bool shape = shaped(b.request->scores);
    for (int i = 0; i < b.rows; ++i) {
        const Span span = at.span[i / kRegisterRows];
        if (span.from == span.to) continue;
        const auto run = [&](auto bounded) __attribute__((always_inline)) {
            exponentials<kSlope, decltype(bounded)::value, kPaired, kKept>(
                at.tile + i * kTile + span.from, weights + i * kTile + span.from,
                at.weights + i * (kTile / 2) + span.from / 2, span.to - span.from, unit, b.state.reference[i],
                at.shift[i], at.offset[i], b.state.mass + i * kLanes, b.state.slope + i * kLanes);
        };
        if (kSlope && !shape && b.row[i].lo <= j0 + span.from && b.row[i].hi >= j0 + span.to)
            run(std::bool_constant<kSlope>{});
        else run(std::false_type{});
    }
}

// The same for all kinds of calls. kept: something reads the weights as floats.
template <bool kSlope>
INLINE void exponentials_of(const Block& b, const Scratch& at, float unit, int j0, float* weights, bool paired,
                            bool kept) {
    if (!paired) all_exponentials<kSlope, false, true>(b, at, unit, j0, weights);
    else if (kept) all_exponentials<kSlope, true, true>(b, at, unit, j0, weights);
    else all_exponentials<kSlope, true, false>(b, at, unit, j0, weights);
}

// A settled tile holds a weight for every key: 0 outside the spans.
INLINE void clear_outside(const Block& b, const Scratch& at, int width, float* tile) {
    for (int i = 0; i < b.rows; ++i) {
        const Span span = at.span[i / kRegisterRows];
        float* x = tile + i * kTile;
        for (int j = 0; j < span.from; j += kLanes) store(x + j, Floats{});
        for (int j = span.to; j < width; j += kLanes) store(x + j, Floats{});
    }
}

// Add a tile's e^(s - reference) times the values of one moment, read as they lie.
INLINE void add_direct(const Block& b, const Scratch& at, const Observation& o, int j0, int width, const float* tile,
                       float* into) {
    const bool paired = pairs(*b.request, o);
    const int from = b.j0 > j0 ? b.j0 - j0 : 0, to = b.j1 - j0 < width ? b.j1 - j0 : width;
    const int head = heads_of(o, b.request->dims, b.row[0].head);
    const void* weights = paired ? static_cast<const void*>(at.weights) : tile;
    with_source(o.operand.kind, paired, [&](auto source) {
        gather_direct<decltype(source)>(b, o, head, j0, from, to, static_cast<const uint32_t*>(weights),
                                        paired ? kTile / 2 : kTile, into, up(o.count, kPanel), at.shift, at.values);
    });
}

// Add a tile's e^(s - reference) times the values to every moment.
INLINE void moments(const Block& b, const Scratch& at, int j0, int width, const float* tile, bool first) {
    const Request& r = *b.request;
    float* into = b.state.moments;
    int moment = 0;
    for (const Observation& o : r.observations) {
        if (o.what != What::moment) continue;
        const long columns = up(o.count, kPanel);
        if (!b.values && direct(b)) {
            add_direct(b, at, o, j0, width, tile, into);
            into += kRows * columns;
            continue;
        }
        long length = value_words(r, o, kTile);
        const char* values = at.values;
        if (b.values) {
            length = value_words(r, o, r.dims.m);
            values = b.values[moment] + sizeof(float) * static_cast<size_t>(value_words(r, o, j0) * kPanel);
        } else {
            const int j1 = j0 + width < r.dims.m ? j0 + width : r.dims.m;
            pack_down(o.operand, static_cast<int>(o.count), pairs(r, o), b.batch, heads_of(o, r.dims, b.row[0].head),
                      j0, j1, length, at.values);
        }
        for (long c = 0; c < columns; c += kPanel) {
            const char* panel = values + sizeof(float) * static_cast<size_t>(c * length);
            const float* shift = first ? nullptr : at.shift;
            for (int i = 0; i < b.rows; i += kRegisterRows) {
                const Span span = at.span[i / kRegisterRows];
                const int some = b.rows - i < kRegisterRows ? b.rows - i : kRegisterRows;
                const long skip = pairs(r, o) ? span.from / 2 : span.from;
                const long deep = pairs(r, o) ? (span.to - span.from) / 2 : span.to - span.from;
                if (!deep) continue;
                const float* shifts = shift ? shift + i : nullptr;
                if (pairs(r, o))
                    multiply(some, at.weights + i * (kTile / 2) + skip, kTile / 2,
                             reinterpret_cast<const Pair*>(panel) + skip * kPanel, deep, into + i * columns + c,
                             columns, shifts);
                else
                    multiply(some, tile + i * kTile + skip, kTile,
                             reinterpret_cast<const float*>(panel) + skip * kPanel, deep, into + i * columns + c,
                             columns, shifts);
            }
        }
        into += kRows * columns;
        ++moment;
    }
}

// The products of all rows with keys j0 ... j0 + width - 1.
INLINE void products(const Block& b, const Scratch& at, int j0, int width, float* tile) {
    const Request& r = *b.request;
    const long words = depth(r);
    if (!b.keys && direct(b))
        return with_source(r.k.kind, pairs(r), [&](auto source) {
            score_direct<decltype(source)>(b, at.padded, j0, width, tile, at.keys);
        });
    const char* keys = b.keys ? b.keys + sizeof(float) * static_cast<size_t>(j0 * words) : at.keys;
    if (!b.keys)
        pack_across(r.k, r.dims.d, pairs(r), b.batch, b.key_head, j0, j0 + width < r.dims.m ? j0 + width : r.dims.m,
                    at.keys);
    for (int j = 0; j < width; j += kPanel) {
        const char* panel = keys + sizeof(float) * static_cast<size_t>(j * words);
        for (int i = 0; i < b.rows; i += kRegisterRows) {
            const Span span = at.span[i / kRegisterRows];
            if (j < span.from || j >= span.to) continue;
            const int some = b.rows - i < kRegisterRows ? b.rows - i : kRegisterRows;
            if (pairs(r))
                multiply(some, static_cast<const Pair*>(at.queries) + i * words, words,
                         reinterpret_cast<const Pair*>(panel), words, tile + i * kTile + j, kTile);
            else
                multiply(some, static_cast<const float*>(at.queries) + i * words, words,
                         reinterpret_cast<const float*>(panel), words, tile + i * kTile + j, kTile);
        }
    }
}

void settle(Block& b) {
    const Request& r = *b.request;
    const Folds folds(r);
    Carver carver(b.scratch);
    Scratch at(r, carver);
    start(r, b.state);
    const float scale = pack_queries(b, at.queries), unit = remaining_scale(r) * kLog2e;
    const bool kept = b.strip || !folds.all_paired;
    if (!b.keys && direct(b)) pad_queries(b, at.queries, at.padded);
    int before = 0;  // tiles
    for (int j0 = b.j0 / kTile * kTile; j0 < b.j1; j0 += kTile, ++before) {
        const int width = static_cast<int>(up(b.j1 - j0 < kTile ? b.j1 - j0 : kTile, kPanel));
        const int number = j0 / kTile;
        // Logits stay where the last tile's were, in cache.
        float* weights = b.strip ? b.strip + static_cast<long>(number) * b.strip_rows * kTile : at.tile;
        find_spans(b, j0, width, at.span);
        products(b, at, j0, width, at.tile);
        score(b, j0, width, scale, at.tile);
        fold_largest(b, folds, at, j0, at.tile, before);
        move_references(b, at, unit);
        if (b.strip)
            std::memcpy(b.strip_reference + static_cast<long>(number) * b.strip_rows, b.state.reference,
                        sizeof(float) * static_cast<size_t>(b.rows));
        if (folds.slope) exponentials_of<true>(b, at, unit, j0, weights, folds.paired, kept);
        else exponentials_of<false>(b, at, unit, j0, weights, folds.paired, kept);
        if (b.strip) clear_outside(b, at, width, weights);
        moments(b, at, j0, width, weights, !before);
    }
}

size_t scratch_bytes(const Request& r) {
    Carver carver(nullptr);
    Scratch{r, carver};
    const size_t later = r.field.part == Part::none ? 0 : field_scratch_bytes(r);
    return carver.used() > later ? carver.used() : later;
}

}  // namespace
}  // namespace sightline
