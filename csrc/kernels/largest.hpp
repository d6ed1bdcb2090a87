// The largest logits of a tile's rows: what the fold is relative to, and the lists of them.
#pragma once

#include <algorithm>

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

// The largest of a row's logits, lane by lane.
INLINE Floats largest_lanes(const float* x, Span span) {
    Floats most[2] = {splat(-INFINITY), splat(-INFINITY)};
    by_panels(span, [&](int j) __attribute__((always_inline)) {
        most[0] = larger(load(x + j), most[0]);
        most[1] = larger(load(x + j + kLanes), most[1]);
    });
    return larger(most[0], most[1]);
}

// Whether a row has more candidates for a list of length k than one tile mostly has.
INLINE bool many(const uint16_t* bits, int k) { return count_bits(bits) > 2 * k + kBits; }

// Which of a row's logits reach `cut`, all of `bits` being 0.
INLINE void find_reaching(const float* x, Span span, float cut, uint16_t* bits) {
    by_panels(span, [&](int j) __attribute__((always_inline)) { set_reaching(x, j, cut, bits); });
}

// Of a row's logits that reach `cut` those that may be among the k first: where one that k of them are no smaller than
// is higher, that reach it, and of its equals the k first.
__attribute__((noinline)) void find_closer(const float* x, Span span, float cut, int k, uint16_t* bits) {
    cut = std::max(cut, at_least(x + span.from, span.to - span.from, k));
    std::memset(bits, 0, sizeof(uint16_t) * kWords);
    find_reaching(x, span, cut, bits);
    if (!many(bits, k)) return;
    alignas(64) uint16_t more[kWords] = {};
    find_reaching(x, span, just_above(splat(cut))[0], more);
    int room = k;
    for (int w = 0; w < kWords; ++w) {
        uint32_t equals = bits[w] & ~uint32_t{more[w]}, kept = more[w];
        for (; equals && room; equals &= equals - 1, --room) kept |= equals & -equals;
        bits[w] = static_cast<uint16_t>(kept);
    }
}

// Some rows of a tile, i0 ... i1 - 1, and which of their logits may be among a row's k largest: bits [., kWords].
struct Rows {
    int i0, i1;
    const float* cut;
    uint16_t* bits;
};

// Fewer of them, where a row has many: logits may descend, or be equal. tile: the first row's.
__attribute__((noinline)) void leave_out(const Scratch& at, const Rows& rows, const float* tile, int k) {
    for (int i = rows.i0; i < rows.i1; ++i) {
        const int c = i - rows.i0;
        uint16_t* mine = rows.bits + c * kWords;
        if (many(mine, k)) find_closer(tile + c * kTile, at.span[i / kGroupRows], rows.cut[c], k, mine);
    }
}

// Have them wait.
INLINE void add_waiting(const Scratch& at, const Rows& rows, int j0, const float* tile, int k) {
    constexpr int kMaps = kTogether * kWords / kMap;
    uint32_t some[kMaps];
    int full = 0;
    for (int map = 0; map < kMaps; ++map) full += __builtin_popcount(some[map] = any(rows.bits + map * kMap));
    if (2 * full > kMaps * kMap) leave_out(at, rows, tile, k);
    for (int map = 0; map < kMaps; ++map) {
        for (uint32_t words = some[map]; words; words &= words - 1) {
            const unsigned word = static_cast<unsigned>(map * kMap + __builtin_ctz(words));
            const int row = static_cast<int>(word / kWords), key = static_cast<int>(word % kWords * kBits);
            at.waiting.add(rows.i0 + row, rows.bits[word], tile + word * kBits, j0 + key);
        }
    }
}

// Have the lists of rows i0 ... i1 - 1 take in what waits.
INLINE void take_all(const Block& b, const Scratch& at, int i0, int i1, int k) {
    for (int i = i0; i < i1; i += kLanes) take_in(b.state.top, b.state.top_keys, k, at.waiting, i);
}

// What a logit of keys from j0 on must reach to come before the last of its row's list, for kLanes rows from `i` on: an
// equal does where its key is smaller.
INLINE Floats list_cuts(const State& s, int i, int k, int j0) {
    const Floats last = load(s.top + listed(i, k - 1, k));
    const Ints key = load<Ints>(s.top_keys + listed(i, k - 1, k));
    return larger(pick((key >= Ints{}) & (key < splat(j0)), just_above(last), last), splat(kLeast));
}

// The same or a higher number that k of a row's logits are no smaller than: the k-th of the maxima of kLanes parts of
// them, those of this tile among them. For the first kBounded tiles.
INLINE Floats bounded_cuts(const Scratch& at, int i, int k, Floats cut) {
    if (k > kLanes) return cut;
    return larger(k == 1 ? load(at.maxima + i) : sorted_at(at.maxima + i * kLanes, k), cut);
}

// The largest logit of rows `first` ... `end` - 1 of a tile, and of parts of all of a row where lists are asked for.
// tile: the first's row; before: how many tiles have been folded.
INLINE void fold_largest(const Folds& folds, const Scratch& at, int first, int end, const float* tile, int before) {
    const int k = folds.top;
    const auto gather = [&](float* x, Floats of_tile)
                            __attribute__((always_inline)) { store(x, before ? larger(of_tile, load(x)) : of_tile); };
    for (int i0 = first; i0 < end; i0 += kLanes) {
        Floats most[kLanes];
        const int rows = end - i0 < kLanes ? end - i0 : kLanes;
        for (int c = 0; c < rows; ++c)
            most[c] = largest_lanes(tile + (i0 - first + c) * kTile, at.span[(i0 + c) / kGroupRows]);
        for (int c = rows; c < kLanes; ++c) most[c] = splat(-INFINITY);
        for (int c = 0; k > 1 && before < kBounded && c < rows; ++c) gather(at.maxima + (i0 + c) * kLanes, most[c]);
        largest_lane(most);
        store(at.highest + i0, most[0]);
        if (k == 1) gather(at.maxima + i0, most[0]);
    }
}

// Then what those lists ask for, which some may wait for: before powers take the logits' place.
INLINE void fold_top(const Block& b, const Folds& folds, const Scratch& at, int first, int end, int j0,
                     const float* tile, int before) {
    const int k = folds.top;
    if (!k) return;
    for (int i0 = first; i0 < end; i0 += kTogether) {
        const int i1 = i0 + kTogether < end ? i0 + kTogether : end;
        const float* mine = tile + (i0 - first) * kTile;
        alignas(64) float cut[kTogether];
        Ints some{};
        for (int c = 0; c < kTogether; c += kLanes) {
            const Floats enough = list_cuts(b.state, i0 + c, k, j0);
            store(cut + c, enough);
            some |= load(at.highest + i0 + c) >= enough;
        }
        if (!any_lane(some)) continue;
        alignas(64) uint16_t bits[kTogether * kWords] = {};
        const Rows rows{i0, i1, cut, bits};
        for (int c = 0; c < kTogether && before < kBounded; c += kLanes)
            store(cut + c, bounded_cuts(at, i0 + c, k, load(cut + c)));
        for (int i = i0; i < i1; ++i) {
            const int c = i - i0;
            if (before >= kEarly && !(at.highest[i] >= cut[c])) continue;
            find_reaching(mine + c * kTile, at.span[i / kGroupRows], cut[c], bits + c * kWords);
        }
        add_waiting(at, rows, j0, mine, k);
        Ints full{};
        for (int c = 0; c < kTogether; c += kLanes) full |= load<Ints>(at.waiting.counts + i0 + c) >= splat(kWaiting);
        // Lists are about to be all that cuts.
        if (before + 1 == kBounded || any_lane(full)) take_all(b, at, i0, i1, k);
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
    const Floats highest = largest_lanes(at.tile + i * kTile, {0, kTile});
    const Turn turn(splat(b.state.reference[i]), splat(largest(highest)), unit, slack);
    b.state.reference[i] = turn.reference[0];
    at.offset[i] = turn.offset[0];
    at.shift[i] = turn.shift[0];
}

}  // namespace
}  // namespace sightline
