// Rows against keys while the log-sum-exp is still moving: products, logits, folds, moments. One pass over the keys.
#pragma once

#include "field.hpp"
#include "powers.hpp"

namespace sightline {
namespace {

// A settled tile holds a weight for every key: 0 outside the spans.
INLINE void clear_outside(const Block& b, const Scratch& at, int width, float* tile) {
    for (int i = 0; i < b.rows; ++i) {
        const Span span = at.span[i / kGroupRows];
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

// A moment's values at the keys of a tile, in panels `length` words long.
struct Values {
    const char* panels;
    long length;
};

INLINE Values values_of(const Block& b, const Scratch& at, const Observation& o, int moment, int j0, int width) {
    const Request& r = *b.request;
    if (b.values) {
        const size_t skip = static_cast<size_t>(value_words(r, o, j0) * kPanel);
        return {b.values[moment] + sizeof(float) * skip, value_words(r, o, r.dims.m)};
    }
    const long length = value_words(r, o, kTile);
    const int j1 = j0 + width < r.dims.m ? j0 + width : r.dims.m;
    pack_down(o.operand, static_cast<int>(o.count), pairs(r, o), b.batch, heads_of(o, r.dims, b.row[0].head), j0, j1,
              length, at.values);
    return {at.values, length};
}

// Add a group's e^(s - reference) times the values of one moment.
template <class Work>
INLINE void add_packed(const Block& b, const Scratch& at, const Observation& o, const Values& values, int group,
                       const float* tile, float* into, const float* shift, Work& beside) {
    const Span span = at.span[group];
    const int i = group * kGroupRows;
    const long columns = up(o.count, kPanel);
    if (span.from == span.to) return;
    const auto run = [&](const auto* weights, long row) {
        using Word = std::remove_cv_t<std::remove_pointer_t<decltype(weights)>>;
        const int from = std::is_same_v<Word, Pair> ? span.from / 2 : span.from;
        const int to = std::is_same_v<Word, Pair> ? span.to / 2 : span.to;
        multiply_group(b.rows - i, weights + i * row + from, row,
                       reinterpret_cast<const Word*>(values.panels) + from * kPanel, values.length, to - from, columns,
                       into + i * columns, columns, shift ? shift + i : nullptr, beside);
    };
    if (pairs(*b.request, o)) run(at.weights, kTile / 2);
    else run(tile, kTile);
}

// All moments but the `done` first.
INLINE void moments(const Block& b, const Scratch& at, int j0, int width, const float* tile, bool first, int done) {
    const Request& r = *b.request;
    float* into = b.state.moments;
    Nothing nothing;
    int moment = 0;
    for (const Observation& o : r.observations) {
        if (o.what != What::moment) continue;
        if (moment >= done) {
            if (!b.values && direct(b)) {
                add_direct(b, at, o, j0, width, tile, into);
            } else {
                const Values values = values_of(b, at, o, moment, j0, width);
                for (int group = 0; group < groups_of(b); ++group)
                    add_packed(b, at, o, values, group, tile, into, first ? nullptr : at.shift, nothing);
            }
        }
        into += kRows * up(o.count, kPanel);
        ++moment;
    }
}

// The products of a group's rows with the keys of a tile, packed, into [kGroupRows, kTile].
template <class Work>
INLINE void multiply_keys(const Block& b, const Scratch& at, const char* keys, int group, float* into, Work& beside) {
    const long words = depth(*b.request);
    const Span span = at.span[group];
    const int i = group * kGroupRows;
    const auto run = [&](const auto* word) {
        using Word = std::remove_cv_t<std::remove_pointer_t<decltype(word)>>;
        const Word *rows = static_cast<const Word*>(at.queries) + i * words,
                   *panels = reinterpret_cast<const Word*>(keys);
        multiply_group(b.rows - i, rows, words, panels + span.from * words, words, words, span.to - span.from,
                       into + span.from, kTile, nullptr, beside);
    };
    if (pairs(*b.request)) run(static_cast<const Pair*>(nullptr));
    else run(static_cast<const float*>(nullptr));
}

// Keys j0 ... of a whole head's packed ones.
INLINE const char* keys_at(const Block& b, int j0) {
    return b.keys + sizeof(float) * static_cast<size_t>(j0 * depth(*b.request));
}

// The products of groups `from` ... `to` - 1 with keys j0 ... j0 + width - 1; of all, where keys are not packed.
INLINE void products(const Block& b, const Scratch& at, int from, int to, int j0, int width) {
    const Request& r = *b.request;
    if (!b.keys && direct(b))
        return with_source(r.k.kind, pairs(r), [&](auto source) {
            score_direct<decltype(source)>(b, at.padded, j0, width, at.tile, at.keys);
        });
    if (!b.keys)
        pack_across(r.k, r.dims.d, pairs(r), b.batch, b.key_head, j0, j0 + width < r.dims.m ? j0 + width : r.dims.m,
                    at.keys);
    Nothing nothing;
    for (int group = from; group < to; ++group)
        multiply_keys(b, at, b.keys ? keys_at(b, j0) : at.keys, group, at.tile + (group - from) * kGroupRows * kTile,
                      nothing);
}

// Whether all of a tile counts for every row, just as multiplied.
INLINE bool plain(const Block& b, const Scratch& at, int width) {
    bool whole = width == kTile && !shaped(b.request->scores);
    for (int group = 0; group < groups_of(b); ++group) whole &= at.span[group].whole;
    return whole;
}

INLINE const Observation* first_moment(const Request& r) {
    for (const Observation& o : r.observations)
        if (o.what == What::moment) return &o;
    return nullptr;
}

// A tile's logits fold into the state, its weights gather values. The processor raises 2 to some rows' logits while it
// multiplies other rows. Here with keys, before it is known whether a reference moves: seldom, and then its rows' part
// is done again.
template <bool kSlope>
INLINE void settle_ahead(const Powers& of, const Folds& folds, int j0, const Observation& o) {
    const Block& b = of.b;
    const Scratch& at = of.at;
    const int groups = groups_of(b);
    const Values values = values_of(b, at, o, 0, j0, kTile);
    const char* keys = keys_at(b, j0);
    using Work = Beside<true, kSlope, false, true>;
    Nothing nothing;
    const auto finish = [&](int group, Work& work) {
        if (work.finish()) return;
        // Powers may have taken the logits' place.
        multiply_keys(b, at, keys, group, of.logits(group * kGroupRows), nothing);
        for (int i = group * kGroupRows; i < b.rows && i < (group + 1) * kGroupRows; ++i)
            move_reference(b, at, i, of.unit, slack(folds));
        group_powers<kSlope, false, true>(of, group, j0);
    };
    multiply_keys(b, at, keys, 0, of.tile, nothing);
    for (int group = 1; group < groups; ++group) {
        Work work(of, group - 1);
        multiply_keys(b, at, keys, group, of.logits(group * kGroupRows), work);
        finish(group - 1, work);
    }
    Work work(of, groups - 1);
    if (groups > 1) add_packed(b, at, o, values, 0, of.weights, b.state.moments, at.shift, work);
    finish(groups - 1, work);
    for (int group = groups > 1; group < groups; ++group)
        add_packed(b, at, o, values, group, of.weights, b.state.moments, at.shift, nothing);
}

// Here with values, after the references moved: where they do so with every new largest logit, or all logits are looked
// at for lists of them anyway, or where some are masked. o: the moment that has packed values; none: nothing overlaps.
template <bool kSlope, bool kPaired, bool kKept>
INLINE void settle_after(const Powers& of, const Folds& folds, int j0, int width, float scale, int before,
                         const Observation* o) {
    const Block& b = of.b;
    const Scratch& at = of.at;
    const int groups = groups_of(b);
    products(b, at, 0, groups, j0, width);
    score(b, 0, b.rows, j0, width, scale, at.tile);
    fold_largest(folds, at, 0, b.rows, at.tile, before);
    fold_top(b, folds, at, 0, b.rows, j0, at.tile, before);
    move_references(b, at, 0, b.rows, of.unit, slack(folds));
    for (int group = 0; group < (o ? 1 : groups); ++group) group_powers<kSlope, kPaired, kKept>(of, group, j0);
    if (!o) return;
    const Values values = values_of(b, at, *o, 0, j0, width);
    for (int group = 0; group < groups; ++group) {
        Beside<false, kSlope, kPaired, kKept> work(of, group + 1);
        add_packed(b, at, *o, values, group, of.weights, b.state.moments, before ? at.shift : nullptr, work);
        work.finish();
    }
}

// Here one group after the other, so that its logits stay in the nearest cache: where products run on matrix registers,
// and memory is what they wait for. Every group's logits take the same place, where no weights may be kept.
template <bool kSlope, bool kPaired, bool kKept>
INLINE void settle_in_turn(Powers of, const Folds& folds, int j0, int width, float scale, int before) {
    const Block& b = of.b;
    const Scratch& at = of.at;
    for (int group = 0; group < groups_of(b); ++group) {
        const int first = group * kGroupRows, end = first + kGroupRows < b.rows ? first + kGroupRows : b.rows;
        products(b, at, group, group + 1, j0, width);
        if (!at.span[group].whole || shaped(b.request->scores)) score(b, first, end, j0, width, scale, at.tile);
        fold_largest(folds, at, first, end, at.tile, before);
        if (folds.top) {
            if (before < kBounded) keep_awake();  // candidates are many at first
            fold_top(b, folds, at, first, end, j0, at.tile, before);
            keep_awake();
        }
        move_references(b, at, first, end, of.unit, slack(folds));
        of.first = first;
        group_powers<kSlope, kPaired, kKept>(of, group, j0);
    }
}

template <bool kSlope, bool kPaired, bool kKept>
__attribute__((noinline)) void settle_tile(const Powers& of, const Folds& folds, int j0, int width, float scale,
                                           int before) {
    const Block& b = of.b;
    constexpr bool kInTurn = kMatrices && kPaired;
    const Observation* o = kOverlaps && b.overlap && b.keys && b.values ? first_moment(*b.request) : nullptr;
    const auto run = [&] {
        if constexpr (kInTurn)
            if (b.keys && !(kKept && of.weights == of.at.tile))
                return settle_in_turn<kSlope, kPaired, kKept>(of, folds, j0, width, scale, before);
        if constexpr (!kPaired)
            if (o && before && !folds.top && plain(b, of.at, width)) return settle_ahead<kSlope>(of, folds, j0, *o);
        settle_after<kSlope, kPaired, kKept>(of, folds, j0, width, scale, before, o);
    };
    run();
    moments(b, of.at, j0, width, of.weights, !before, o != nullptr);
}

void settle(Block& b) {
    const Request& r = *b.request;
    const Folds folds(r);
    const Matrices matrices(pairs(r) && (b.keys || !direct(b)));
    Carver carver(b.scratch);
    Scratch at(r, carver);
    start(b);
    const float scale = pack_queries(b, at.queries), unit = remaining_scale(r) * kLog2e;
    const bool kept = b.strip || !folds.all_paired;
    if (!b.keys && direct(b)) pad_queries(b, at.queries, at.padded);
    find_bounds(b, at.bounds);
    if (folds.top) std::memset(at.waiting.counts, 0, sizeof(int) * kRows);
    const int begin = b.j0 / kTile * kTile, tiles = b.j0 < b.j1 ? (b.j1 - 1 - begin) / kTile + 1 : 0;
    for (int before = 0; before < tiles; ++before) {
        // The last first: what weighs most is often what came last, and lists of largest logits cut well once they have
        // it. Keys that are not packed come in their order, as memory wants it. Where they stand decides alone: a row
        // meets its tiles in the same order whatever block it is in.
        const int j0 = begin + (b.keys ? tiles - 1 - before : before) * kTile;
        const int width = static_cast<int>(up(b.j1 - j0 < kTile ? b.j1 - j0 : kTile, kPanel));
        const int number = j0 / kTile;
        // Logits stay where the last tile's were, in cache.
        float* weights = b.strip ? b.strip + static_cast<long>(number) * b.strip_rows * kTile : at.tile;
        find_spans(b, at.bounds, j0, width, at.span);
        const Powers of{b, at, unit, weights, at.tile, 0};
        const auto run = [&](auto slope) {
            constexpr bool kSlope = decltype(slope)::value;
            if (!folds.paired) settle_tile<kSlope, false, true>(of, folds, j0, width, scale, before);
            else if (kept) settle_tile<kSlope, true, true>(of, folds, j0, width, scale, before);
            else settle_tile<kSlope, true, false>(of, folds, j0, width, scale, before);
        };
        if (folds.slope) run(std::true_type{});
        else run(std::false_type{});
        if (!b.strip) continue;
        std::memcpy(b.strip_reference + static_cast<long>(number) * b.strip_rows, b.state.reference,
                    sizeof(float) * static_cast<size_t>(b.rows));
        clear_outside(b, at, width, weights);
    }
    if (folds.top) take_all(b, at, 0, b.rows, folds.top);
}

size_t scratch_bytes(const Request& r) {
    Carver carver(nullptr);
    Scratch{r, carver};
    const size_t later = r.field.part == Part::none ? 0 : field_scratch_bytes(r);
    return carver.used() > later ? carver.used() : later;
}

}  // namespace
}  // namespace sightline
