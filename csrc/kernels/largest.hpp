// The largest logits of a tile's rows: what the fold is relative to, and the lists of them.
#pragma once

#include "state.hpp"
#include "tile.hpp"

namespace sightline {
namespace {

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
                closer_above(tile + c * kTile, at.span[i / kGroupRows], k, mine);
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
        find_above(tile + c * kTile, at.span[i / kGroupRows], cut, rows.bits + c * kWords);
    }
}

// The largest logit of rows `first` ... `end` - 1 of a tile, and lists of more of them. tile: the first's row; before:
// how many tiles have been folded.
INLINE void fold_largest(const Block& b, const Folds& folds, const Scratch& at, int first, int end, int j0,
                         const float* tile, int before) {
    const int k = folds.top;
    const bool bounded = !before && k > 1 && k <= kLanes, early = k && before && before < kEarly;
    for (int i0 = first; i0 < end; i0 += kTogether) {
        alignas(64) uint16_t bits[kTogether * kWords];
        float last[kTogether], bound[kTogether];
        const Rows rows{i0, i0 + kTogether < end ? i0 + kTogether : end, bits};
        const float* mine = tile + (i0 - first) * kTile;
        if (k) std::memset(bits, 0, sizeof bits);
        Floats most[kTogether];
        for (int c = 0; c < rows.i1 - i0; ++c) {
            const Span span = at.span[(i0 + c) / kGroupRows];
            if (k) last[c] = logit_of(b.state.top[listed(i0 + c, k - 1, k)]);
            most[c] = early ? largest_lanes<true>(mine + c * kTile, span, last[c], bits + c * kWords)
                            : largest_lanes<false>(mine + c * kTile, span, 0, nullptr);
        }
        for (int c = rows.i1 - i0; c < kTogether; ++c) most[c] = splat(-INFINITY);
        if (bounded)
            for (int c = 0; c < rows.i1 - i0; ++c) store(at.maxima + c * kLanes, most[c]);
        for (int c = 0; c < kTogether; c += kLanes) {
            largest_lane(most + c);
            store(at.highest + i0 + c, most[c]);
        }
        bool some = false;
        for (int c = 0; k && c < rows.i1 - i0; ++c) some |= at.highest[i0 + c] > last[c];
        if (!some) continue;
        if (bounded)  // at least k logits are no smaller than the k-th of the maxima of kLanes parts
            for (int c = 0; c < rows.i1 - i0; c += kLanes) sorted_at(at.maxima + c * kLanes, k, bound + c);
        if (!early) find_candidates(at, rows, mine, last, bounded ? bound : nullptr);
        fold_top(b, at, rows, j0, mine, k);
    }
}

// A reference need not be the largest logit: until one exceeds it by a factor of 2^kSlack it stays, and with it all
// that is relative to it. Where weights are rounded to bf16 it has to be: the largest weighs most, and 1 is not
// rounded.
constexpr float kSlack = 8;
INLINE float slack(const Folds& folds) { return folds.paired ? 0 : kSlack; }

// A fold that turns to a new reference, one row a lane: shift and offset are 0 for rows as yet empty.
struct Turn {
    Floats reference, offset, shift;

    INLINE Turn(Floats old, Floats highest, float unit, float slack) {
        const Ints empty = old == splat(-INFINITY);
        reference = pick(empty | ((highest - old) * unit > splat(slack)), highest, old);
        offset = pick(empty, Floats{}, (old - reference) * unit);
        shift = pick(empty, Floats{}, power_of_2(offset));
    }
};

// Move the references of rows i0 ... i1 - 1 that the tile's largest logits leave too far behind.
INLINE void move_references(const Block& b, const Scratch& at, int i0, int i1, float unit, float slack) {
    for (int i = i0; i < i1; i += kLanes) {
        const Turn turn(load(b.state.reference + i), load(at.highest + i), unit, slack);
        store(b.state.reference + i, turn.reference);
        store(at.offset + i, turn.offset);
        store(at.shift + i, turn.shift);
    }
}

// One row's, all of whose logits in a tile count.
INLINE void move_reference(const Block& b, const Scratch& at, int i, float unit, float slack) {
    const Floats highest = largest_lanes<false>(at.tile + i * kTile, {0, kTile}, 0, nullptr);
    const Turn turn(splat(b.state.reference[i]), splat(largest(highest)), unit, slack);
    b.state.reference[i] = turn.reference[0];
    at.offset[i] = turn.offset[0];
    at.shift[i] = turn.shift[0];
}

}  // namespace
}  // namespace sightline
