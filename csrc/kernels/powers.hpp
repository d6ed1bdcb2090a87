// e^(s - reference): the exponentials of a tile's logits, row by row or beside a product.
#pragma once

#include "largest.hpp"

namespace sightline {
namespace {

// What turns the logits of a tile into e^(s - reference), and where those go: floats (maybe in the logits' place),
// pairs or thirds, or floats and one of those.
struct Powers {
    const Block& b;
    const Scratch& at;
    float unit;
    float* weights;
    float* tile;  // the logits of row `first` and those after it
    int first;

    INLINE float* logits(int i) const { return tile + (i - first) * kTile; }
};

// One panel of a row; sums, slopes and most gather it. kBounded: no logit is -inf, or as good as that.
template <bool kMost, bool kSlope, bool kBounded, Form kForm, bool kKept>
INLINE void panel_powers(const float* x, float* kept, Pair* pairs, float base, float unit, Floats& sums, Floats& slopes,
                         Floats& most) {
    Floats e[2];
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
        const Floats below = (load(x + half * kLanes) - base) * unit;
        if (kMost) most = larger(below, most);
        e[half] = power_of_2(below);
        // 0 times -inf would not be 0
        if (kSlope) slopes = fma(kBounded ? below : larger(splat(-150.0f), below), e[half], slopes);
        if (kKept) store(kept + half * kLanes, e[half]);
    }
    sums += e[0] + e[1];
    if (kForm == Form::pairs) store_pairs(pairs, e[0], e[1]);
    if (kForm == Form::thirds) store_thirds(pairs, kRows * kTile / 2, e[0], e[1]);
}

INLINE constexpr Form paired_form(bool paired) { return paired ? Form::pairs : Form::floats; }

// What a row's exponentials of a tile gathered joins its fold.
template <bool kSlope>
INLINE void fold_sums(const Powers& of, int i, Floats sums, Floats slopes) {
    float *mass = of.b.state.mass + i * kLanes, *slope = of.b.state.slope + i * kLanes;
    const Floats before = load(mass), shift = splat(of.at.shift[i]);
    if (kSlope) {  // an affine map: t becomes e^d (t + d l)
        const Floats moved = fma(before, splat(of.at.offset[i]), load(slope));
        store(slope, fma(moved, shift, slopes));
    }
    store(mass, fma(before, shift, sums));
}

INLINE float finite_reference(const Block& b, int i) {
    return b.state.reference[i] == -INFINITY ? 0 : b.state.reference[i];
}

// The rows of one group, one after the other.
template <bool kSlope, bool kPaired, bool kKept>
INLINE void group_powers(const Powers& of, int group, int j0) {
    const Block& b = of.b;
    const Span span = of.at.span[group];
    const bool shape = shaped(b.request->scores);
    for (int i = group * kGroupRows; i < b.rows && i < (group + 1) * kGroupRows; ++i) {
        if (span.from == span.to) continue;
        Floats sums{}, slopes{}, most;
        const auto run = [&](auto bounded) __attribute__((always_inline)) {
            const float *x = of.logits(i), base = finite_reference(b, i), unit = of.unit;
            float* kept = of.weights + i * kTile;
            Pair* pairs = of.at.weights + i * (kTile / 2);
            for (int j = span.from; j < span.to; j += kPanel)
                panel_powers<false, kSlope, decltype(bounded)::value, paired_form(kPaired), kKept>(
                    x + j, kept + j, pairs + j / 2, base, unit, sums, slopes, most);
        };
        if (kSlope && !shape && b.row[i].lo <= j0 + span.from && b.row[i].hi >= j0 + span.to)
            run(std::bool_constant<kSlope>{});
        else run(std::false_type{});
        fold_sums<kSlope>(of, i, sums, slopes);
    }
}

// Whether exponentials may run beside a product: where registers are left beside its sums.
#if defined(__AVX512F__)
constexpr bool kOverlaps = !kMatrices;
#else
constexpr bool kOverlaps = false;
#endif

// The same a panel at a time, beside a product. kAhead: before the rows' references moved, in the hope that they need
// not.
template <bool kAhead, bool kSlope, bool kPaired, bool kKept>
struct Beside {
    const Powers& of;
    const int first, end;
    const Span span;
    int i, j;  // the next row and key

    // One row after the other, of those of a group; of none past the last.
    Beside(const Powers& of, int group)
        : of(of),
          first(group * kGroupRows),
          end(first + kGroupRows < of.b.rows ? first + kGroupRows : of.b.rows),
          span(first < end ? of.at.span[group] : Span{0, 0}),
          i(span.from < span.to ? first : end),
          j(span.from) {
        bool empty = false;
        for (int r = 0; r < end - first; ++r) {
            store(of.at.sums + r * kLanes, Floats{});
            if (kSlope) store(of.at.slopes + r * kLanes, Floats{});
            of.at.base[r] = finite_reference(of.b, first + r);
            empty |= of.b.state.reference[first + r] == -INFINITY;
        }
        if (kAhead) store(of.at.most, splat(empty ? INFINITY : 0.0f));
    }

    INLINE void operator()() {
        if (i >= end) return;
        const int r = i - first, at = i * kTile + j;
        float *sums = of.at.sums + r * kLanes, *slopes = of.at.slopes + r * kLanes;
        Floats sum = load(sums), slope{}, most{};
        if (kSlope) slope = load(slopes);
        if (kAhead) most = load(of.at.most);
        panel_powers<kAhead, kSlope, false, paired_form(kPaired), kKept>(
            of.logits(i) + j, of.weights + at, of.at.weights + at / 2, of.at.base[r], of.unit, sum, slope, most);
        store(sums, sum);
        if (kSlope) store(slopes, slope);
        if (kAhead) store(of.at.most, most);
        j += kPanel;
        if (j < span.to) return;
        j = span.from;
        ++i;
    }

    // The rest of it; false where a reference has to move first.
    INLINE bool finish() {
        while (i < end) (*this)();
        if (kAhead && largest(load(of.at.most)) > kSlack) return false;
        if (span.from == span.to) return true;
        for (int row = first; row < end; ++row) {
            const int r = row - first;
            if (kAhead) of.at.shift[row] = 1, of.at.offset[row] = 0;
            const Floats slope = kSlope ? load(of.at.slopes + r * kLanes) : Floats{};
            fold_sums<kSlope>(of, row, load(of.at.sums + r * kLanes), slope);
        }
        return true;
    }
};

// The same for two groups beside products of thirds: one row after the other, so many panels to a step that all are
// done after `steps` of them.
template <bool kSlope, bool kKept>
struct BesideThirds {
    const Powers& of;
    const int end;
    const Span span;
    const long steps, panels;
    long due = 0;  // panels times steps
    int i, j;      // the next row and key
    Floats sums, slopes;
    float base;

    BesideThirds(const Powers& of, int group, long steps)
        : of(of),
          end(of.first + kThirdGroups * kGroupRows < of.b.rows ? of.first + kThirdGroups * kGroupRows : of.b.rows),
          span(of.at.span[group]),
          steps(steps),
          panels(static_cast<long>(end - of.first) * (span.to - span.from) / kPanel),
          i(span.from < span.to ? of.first : end) {
        start();
    }

    INLINE void start() {
        j = span.from;
        sums = slopes = Floats{};
        if (i < end) base = finite_reference(of.b, i);
    }

    INLINE void panel() {
        const int at = i * kTile + j;
        Floats most;
        panel_powers<false, kSlope, false, Form::thirds, kKept>(
            of.logits(i) + j, of.weights + at, of.at.weights + at / 2, base, of.unit, sums, slopes, most);
        j += kPanel;
        if (j < span.to) return;
        fold_sums<kSlope>(of, i, sums, slopes);
        ++i;
        start();
    }

    INLINE void operator()() {
        for (due += panels; due >= steps && i < end; due -= steps) panel();
    }

    INLINE void finish() {
        while (i < end) panel();
    }
};

}  // namespace
}  // namespace sightline
