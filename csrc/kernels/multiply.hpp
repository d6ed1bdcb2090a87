// The one matrix product: rows of words times panels of words. A word is a float, or a pair of bf16 numbers that the
// instruction set multiplies with another pair and adds up.
#pragma once

#include <type_traits>

#include "vector.hpp"

namespace sightline {
namespace {

struct Pair {
    uint32_t bits;
};

INLINE Floats dot(Floats acc, const float* a, Floats b) { return fma(splat(*a), b, acc); }
INLINE Floats word_vector(const float* p) { return load(p); }

#if defined(__AVX512BF16__)
constexpr bool kPairs = true;
INLINE Floats dot(Floats acc, const Pair* a, __m512i b) {
    return (Floats)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_epi32(static_cast<int>(a->bits)), (__m512bh)b);
}
INLINE __m512i word_vector(const Pair* p) { return _mm512_loadu_si512(p); }
// Two vectors of floats as pairs, in order.
INLINE void store_pairs(Pair* p, Floats low, Floats high) {
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
}
#else
constexpr bool kPairs = false;
INLINE Floats dot(Floats acc, const Pair*, Floats) { return acc; }
INLINE Floats word_vector(const Pair*) { return Floats{}; }
INLINE void store_pairs(Pair*, Floats, Floats) {}
#endif

// R rows of `a` [., depth] times one panel `b` [depth, kPanel], into c [R, kPanel]:
// c = a b, or with `shift`, c = shift_r c + a b.
template <class Word, int R>
__attribute__((noinline)) void multiply_tile(const Word* a, long a_row, const Word* b, long depth, float* c, long c_row,
                                             const float* shift) {
    Floats acc[R][2];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = Floats{};
    const auto step = [&](long p) __attribute__((always_inline)) {
        const auto b0 = word_vector(b + p * kPanel), b1 = word_vector(b + p * kPanel + kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            acc[r][0] = dot(acc[r][0], a + r * a_row + p, b0);
            acc[r][1] = dot(acc[r][1], a + r * a_row + p, b1);
        }
    };
    // Pairs have half as many steps, so that leaving the loop weighs more; floats run a little slower unrolled.
    constexpr int kSteps = std::is_same_v<Word, Pair> ? 4 : 1;
    long p = 0;
    for (; p + kSteps <= depth; p += kSteps) {
#pragma GCC unroll 4
        for (int some = 0; some < kSteps; ++some) step(p + some);
    }
    for (; p < depth; ++p) step(p);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        float* row = c + r * c_row;
        if (shift) {
            acc[r][0] = fma(splat(shift[r]), load(row), acc[r][0]);
            acc[r][1] = fma(splat(shift[r]), load(row + kLanes), acc[r][1]);
        }
        store(row, acc[r][0]);
        store(row + kLanes, acc[r][1]);
    }
}

template <class Word, int R>
void multiply_rest(int rows, const Word* a, long a_row, const Word* b, long depth, float* c, long c_row,
                   const float* shift) {
    if constexpr (R > 0) {
        if (rows == R) return multiply_tile<Word, R>(a, a_row, b, depth, c, c_row, shift);
        multiply_rest<Word, R - 1>(rows, a, a_row, b, depth, c, c_row, shift);
    }
}

// All rows times one panel.
template <class Word>
void multiply(int rows, const Word* a, long a_row, const Word* b, long depth, float* c, long c_row,
              const float* shift = nullptr) {
    for (int r = 0; r < rows; r += kRegisterRows) {
        const int some = rows - r < kRegisterRows ? rows - r : kRegisterRows;
        multiply_rest<Word, kRegisterRows>(some, a + r * a_row, a_row, b, depth, c + r * c_row, c_row,
                                           shift ? shift + r : nullptr);
    }
}

}  // namespace
}  // namespace sightline
