// Square transposes in registers.
#pragma once

#include <utility>

#include "vector.hpp"

namespace sightline {
namespace {

// [a_h, b_h, a_(h+1), b_(h+1), ...]: the low halves of two vectors, or the high ones, word by word.
template <bool kHigh, int... I>
INLINE Ints interleaved(Ints a, Ints b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (I / 2 + (kHigh ? kLanes / 2 : 0) + (I % 2 ? kLanes : 0))...);
}

// Rows become columns: each of log2(kLanes) perfect shuffles turns the bits of (row, column) by one place.
INLINE void transpose(Ints (&v)[kLanes]) {
    constexpr auto all = std::make_integer_sequence<int, kLanes>{};
#pragma GCC unroll 4
    for (int step = 1; step < kLanes; step *= 2) {
        Ints t[kLanes];
#pragma GCC unroll 8
        for (int i = 0; i < kLanes / 2; ++i) {
            t[2 * i] = interleaved<false>(v[i], v[i + kLanes / 2], all);
            t[2 * i + 1] = interleaved<true>(v[i], v[i + kLanes / 2], all);
        }
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) v[i] = t[i];
    }
}

// Each of the kLanes vectors from `v` on joined to one number, in order, in the first; the others are lost. Halves of
// two are laid side by side and joined.
template <int kHalf = kLanes / 2, class Join>
INLINE void join_lanes(Floats* v, Join join) {
    constexpr auto all = std::make_integer_sequence<int, kLanes>{};
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i) {
        const Ints a = (Ints)v[i], b = (Ints)v[i + kHalf];
        v[i] = join((Floats)interleaved<false>(a, b, all), (Floats)interleaved<true>(a, b, all));
    }
    if constexpr (kHalf > 1) join_lanes<kHalf / 2>(v, join);
}

INLINE void add_lanes(Floats* v) {
    join_lanes(v, [](Floats a, Floats b) __attribute__((always_inline)) { return a + b; });
}

INLINE void largest_lane(Floats* v) {
    join_lanes(v, [](Floats a, Floats b) __attribute__((always_inline)) { return larger(a, b); });
}

}  // namespace
}  // namespace sightline
