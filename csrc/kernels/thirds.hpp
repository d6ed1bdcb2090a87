// Floats on matrix registers: each is the sum of three bf16 numbers, its thirds, and a product of two floats six
// products of those. What is left out, the least thirds times all but the largest, is below half of a float's last
// place. (Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision
// Computations", 2019.)
#pragma once

#include "multiply.hpp"

namespace sightline {
namespace {

constexpr int kThirds = 3;       // the largest first
constexpr int kThirdGroups = 2;  // groups of rows that are multiplied at once

// Two vectors of floats as words, lane by lane: the largest thirds at p, the others `third` and 2 `third` words on.
INLINE void store_thirds(Pair* p, long third, Floats low, Floats high) {
#pragma GCC unroll 3
    for (int t = 0; t < kThirds; ++t, p += third) {
        // Rounded, but the last: at most eight bits are left then.
        const uint32_t half = t + 1 < kThirds ? 0x8000 : 0;
        const Words a = (Words)low + half, b = ((Words)high + half) & 0xFFFF0000;
        store(p, a >> 16 | b);
        low -= (Floats)(a & 0xFFFF0000);
        high -= (Floats)b;
    }
}

// How often a product of `depth` words and `columns` calls what is beside it.
INLINE long third_steps(long depth, long columns) { return 6 * (depth / kLanes) * (columns / kPanel); }

#if defined(__AMX_BF16__)

// One or two groups of kSide rows of `a` [., depth], whose thirds lie `a_third` words apart, times one panel of `b`,
// thirds `b_third` words apart, into c [groups kSide, 2 kSide]. depth: a multiple of kSide. The small products are
// added up first, and every step keeps the thirds of one side in their registers.
template <int kGroups, class Beside>
__attribute__((noinline)) void multiply_thirds(const Pair* a, long a_row, long a_third, const Pair* b, long b_third,
                                               long depth, float* c, long c_row, Beside& beside) {
    const long row = 4 * a_row, step = 4 * 2 * kSide, sums = 4 * c_row;
    const auto rows = [&](const Pair* x) __attribute__((always_inline)) {
        SIGHTLINE_MATRIX_LOAD(4, x, row);
        if constexpr (kGroups > 1) SIGHTLINE_MATRIX_LOAD(5, x + kSide * a_row, row);
    };
    const auto panel = [&](const Pair* x) __attribute__((always_inline)) {
        SIGHTLINE_MATRIX_LOAD(6, x, step);
        SIGHTLINE_MATRIX_LOAD(7, x + kSide, step);
    };
    const auto add = [&]() __attribute__((always_inline)) {
        SIGHTLINE_MATRIX_DOT(0, 4, 6);
        SIGHTLINE_MATRIX_DOT(1, 4, 7);
        if constexpr (kGroups > 1) {
            SIGHTLINE_MATRIX_DOT(2, 5, 6);
            SIGHTLINE_MATRIX_DOT(3, 5, 7);
        }
        beside();
    };
    SIGHTLINE_MATRIX_ZERO(0);
    SIGHTLINE_MATRIX_ZERO(1);
    SIGHTLINE_MATRIX_ZERO(2);
    SIGHTLINE_MATRIX_ZERO(3);
    for (long p = 0; p < depth; p += kSide) {
        const Pair *x = a + p, *y = b + p * 2 * kSide;
        rows(x + 2 * a_third);
        panel(y);
        add();
        rows(x + a_third);
        add();
        panel(y + b_third);
        add();
        rows(x);
        add();
        panel(y + 2 * b_third);
        add();
    }
    for (long p = 0; p < depth; p += kSide) {
        rows(a + p);
        panel(b + p * 2 * kSide);
        add();
    }
    SIGHTLINE_MATRIX_STORE(0, c, sums);
    SIGHTLINE_MATRIX_STORE(1, c + kSide, sums);
    if constexpr (kGroups > 1) {
        SIGHTLINE_MATRIX_STORE(2, c + kSide * c_row, sums);
        SIGHTLINE_MATRIX_STORE(3, c + kSide * c_row + kSide, sums);
    }
}

// The same for all columns; `next` words from one panel to the next.
template <class Beside>
INLINE void multiply_thirds(int groups, const Pair* a, long a_row, long a_third, const Pair* b, long next, long b_third,
                            long depth, long columns, float* c, long c_row, Beside& beside) {
    for (long at = 0; at < columns; at += kPanel, b += next) {
        if (groups > 1) multiply_thirds<2>(a, a_row, a_third, b, b_third, depth, c + at, c_row, beside);
        else multiply_thirds<1>(a, a_row, a_third, b, b_third, depth, c + at, c_row, beside);
    }
}

#else

template <class Beside>
INLINE void multiply_thirds(int, const Pair*, long, long, const Pair*, long, long, long, long, float*, long, Beside&) {}

#endif

}  // namespace
}  // namespace sightline
