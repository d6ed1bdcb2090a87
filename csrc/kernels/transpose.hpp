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

// The largest number of each of the vectors from `from` on, in order: halves of two are laid side by side and compared.
template <int kCount = kLanes>
INLINE Floats largest_of_each(const Floats* from) {
    constexpr auto all = std::make_integer_sequence<int, kLanes>{};
    if constexpr (kCount > 1) {
        Floats half[kCount / 2];
#pragma GCC unroll 8
        for (int i = 0; i < kCount / 2; ++i) {
            const Ints a = (Ints)from[i], b = (Ints)from[i + kCount / 2];
            half[i] = larger((Floats)interleaved<false>(a, b, all), (Floats)interleaved<true>(a, b, all));
        }
        return largest_of_each<kCount / 2>(half);
    } else {
        return *from;
    }
}

}  // namespace
}  // namespace sightline
