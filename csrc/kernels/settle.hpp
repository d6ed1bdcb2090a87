// Rows against keys while the log-sum-exp is still moving: products, logits, folds, moments. One pass over the keys.
#pragma once

#include "pipeline.hpp"

namespace sightline {
namespace {

// Whether all of a tile counts for every row, just as multiplied.
INLINE bool plain(const Block& b, const Scratch& at, int width) {
    bool whole = width == kTile && !shaped(b.request->scores);
    for (int group = 0; group < groups_of(b); ++group) whole &= at.span[group].whole;
    return whole;
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
        fold_resting(b, folds, at, {first, end, j0, width, before, at.tile}, scale, of.unit);
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
    const Matrices matrices(thirds(r) || (pairs(r) && (b.keys || !direct(b))));
    Carver carver(b.scratch);
    Scratch at(r, carver);
    start(b);
    const float scale = pack_queries(b, kRows * depth(r), at.queries), unit = remaining_scale(r) * kLog2e;
    const bool kept = b.strip || folds.floats;
    if (!b.keys && direct(b)) pad_queries(b, at.queries, at.padded);
    find_bounds(b, at.bounds);
    if (folds.top) std::memset(at.waiting.counts, 0, sizeof(int) * kRows);
    if constexpr (kMatrices) {
        if (thirds(r)) {
            const auto run = [&](auto slope, auto kept) { settle_thirds<slope, kept>(b, at, folds, scale, unit); };
            const auto with = [&](auto slope) { kept ? run(slope, std::true_type{}) : run(slope, std::false_type{}); };
            folds.slope ? with(std::true_type{}) : with(std::false_type{});
            if (folds.top) take_all(b, at, 0, b.rows, folds.top);
            return;
        }
    }
    for_tiles(b, [&](int j0, int width, int before) {
        find_spans(b, at.bounds, j0, width, at.span);
        const Powers of{b, at, unit, strip_at(b, at, j0), at.tile, 0};
        const auto run = [&](auto slope) {
            constexpr bool kSlope = decltype(slope)::value;
            if (!folds.paired) settle_tile<kSlope, false, true>(of, folds, j0, width, scale, before);
            else if (kept) settle_tile<kSlope, true, true>(of, folds, j0, width, scale, before);
            else settle_tile<kSlope, true, false>(of, folds, j0, width, scale, before);
        };
        if (folds.slope) run(std::true_type{});
        else run(std::false_type{});
        if (b.strip) end_strip(b, at, j0, width, of.weights);
    });
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
