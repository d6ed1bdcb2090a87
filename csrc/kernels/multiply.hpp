// The one matrix product: rows of words times panels of words. A word is a float, or a pair of bf16 numbers that the
// instruction set multiplies with another pair and adds up.
#pragma once

#include <type_traits>

#include "matrix.hpp"

namespace sightline {
namespace {

struct Pair {
    uint32_t bits;
};

// A word in every lane; once for all products with it, since some processors load no faster than they multiply.
INLINE Floats word_everywhere(const float* a) {
#if defined(__AVX512F__)
    Floats w;
    asm("vbroadcastss %1, %0" : "=v"(w) : "m"(*a));
    return w;
#else
    return splat(*a);
#endif
}
INLINE Floats dot(Floats acc, Floats a, Floats b) {
#if defined(__AVX512F__)
    // As an instruction: left to itself, a compiler overwrites factors and moves sums about until they leave registers.
    asm("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(b), "v"(a));
    return acc;
#else
    return fma(a, b, acc);
#endif
}
INLINE Floats word_vector(const float* p) { return load(p); }

#if defined(__AVX512BF16__)
constexpr bool kPairs = true;
INLINE __m512i word_everywhere(const Pair* a) { return _mm512_set1_epi32(static_cast<int>(a->bits)); }
INLINE Floats dot(Floats acc, __m512i a, __m512i b) {
    return (Floats)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
}
INLINE __m512i word_vector(const Pair* p) { return _mm512_loadu_si512(p); }
// Two vectors of floats as pairs, in order.
INLINE void store_pairs(Pair* p, Floats low, Floats high) {
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
}
#else
constexpr bool kPairs = false;
INLINE Floats word_everywhere(const Pair*) { return Floats{}; }
INLINE Floats word_vector(const Pair*) { return Floats{}; }
INLINE void store_pairs(Pair*, Floats, Floats) {}
#endif

#if defined(__AVX512F__)
constexpr int kLast = 2;  // steps of a product that end row by row
#else
constexpr int kLast = 1;
#endif

// What a product has done beside it: nothing.
struct Nothing {
    INLINE void operator()() {}
};

// R rows of `a` [., depth] times one panel `b` [depth, kPanel], into c [R, kPanel]:
// c = a b, or with `shift`, c = shift_r c + a b. beside: called every few steps.
template <class Word, int R, class Beside>
__attribute__((noinline)) void multiply_tile(const Word* a, long a_row, const Word* b, long depth, float* c, long c_row,
                                             const float* shift, Beside& beside) {
    Floats acc[R][2];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = Floats{};
    const auto step = [&](long p) __attribute__((always_inline)) {
        const auto b0 = word_vector(b + p * kPanel), b1 = word_vector(b + p * kPanel + kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const auto w = word_everywhere(a + r * a_row + p);
            acc[r][0] = dot(acc[r][0], w, b0);
            acc[r][1] = dot(acc[r][1], w, b1);
        }
    };
    // Pairs have half as many steps, so that leaving the loop weighs more. What is beside a product comes in small
    // pieces: the processor looks one or two of them ahead.
    constexpr bool kAlone = std::is_same_v<Beside, Nothing>, kPairwise = std::is_same_v<Word, Pair>;
    constexpr int kSteps = kPairwise ? (kAlone ? 6 : 2) : (kAlone ? 2 : 1);
    constexpr int kEvery = kAlone ? kSteps : kPairwise ? 2 : 4;
    const long last = depth < kLast ? depth : depth - kLast;
    long p = 0;
    while (p + kEvery <= last) {
#pragma GCC unroll 1
        for (int some = 0; some < kEvery; some += kSteps, p += kSteps) {
#pragma GCC unroll 6
            for (int one = 0; one < kSteps; ++one) step(p + one);
        }
        beside();
    }
    for (; p < last; ++p) step(p);
    // Row by row, so that not all sums wait to be stored at once.
    const auto finish = [&](auto more) __attribute__((always_inline)) {
        constexpr int kMore = decltype(more)::value;
        decltype(word_vector(b)) b0[kLast], b1[kLast];
#pragma GCC unroll 2
        for (int i = 0; i < kMore; ++i) {
            b0[i] = word_vector(b + (p + i) * kPanel);
            b1[i] = word_vector(b + (p + i) * kPanel + kLanes);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
            for (int i = 0; i < kMore; ++i) {
                const auto w = word_everywhere(a + r * a_row + p + i);
                acc[r][0] = dot(acc[r][0], w, b0[i]);
                acc[r][1] = dot(acc[r][1], w, b1[i]);
            }
            float* row = c + r * c_row;
            if (shift) {
                acc[r][0] = fma(splat(shift[r]), load(row), acc[r][0]);
                acc[r][1] = fma(splat(shift[r]), load(row + kLanes), acc[r][1]);
            }
            store(row, acc[r][0]);
            store(row + kLanes, acc[r][1]);
        }
    };
    if (p < depth) finish(std::integral_constant<int, kLast>{});
    else finish(std::integral_constant<int, 0>{});
}

template <class Word, int R>
void multiply_rest(int rows, const Word* a, long a_row, const Word* b, long depth, float* c, long c_row,
                   const float* shift) {
    if constexpr (R > 0) {
        Nothing nothing;
        if (rows == R) return multiply_tile<Word, R>(a, a_row, b, depth, c, c_row, shift, nothing);
        multiply_rest<Word, R - 1>(rows, a, a_row, b, depth, c, c_row, shift);
    }
}

// Some rows, no more than a group has, times one panel. Rows that fill no register tile have nothing beside them.
template <class Word, class Beside>
INLINE void multiply_panel(int rows, const Word* a, long a_row, const Word* b, long depth, float* c, long c_row,
                           const float* shift, Beside& beside) {
    for (int r = 0; r < rows; r += kRegisterRows) {
        const Word* first = a + r * a_row;
        const float* by = shift ? shift + r : nullptr;
        if (rows - r >= kRegisterRows)
            multiply_tile<Word, kRegisterRows>(first, a_row, b, depth, c + r * c_row, c_row, by, beside);
        else multiply_rest<Word, kRegisterRows - 1>(rows - r, first, a_row, b, depth, c + r * c_row, c_row, by);
    }
}

#if defined(__AMX_BF16__)
alignas(64) constexpr float kOnes[kGroupRows] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

// A whole group of rows of pairs times all columns.
INLINE void multiply_pairs(const Pair* a, long a_row, const Pair* b, long length, long depth, long columns, float* c,
                           long c_row, const float* shift) {
    const long whole = depth / kSide * kSide, next = length * kPanel;
    long at = 0;
    for (; whole && at + kPanel < columns; at += 2 * kPanel)
        multiply_matrices<2>(a, a_row, b + at * length, next, whole, c + at, c_row, shift);
    if (whole && at < columns) multiply_matrices<1>(a, a_row, b + at * length, next, whole, c + at, c_row, shift);
    if (whole == depth) return;
    Nothing nothing;
    for (at = 0; at < columns; at += kPanel)
        multiply_panel(kGroupRows, a + whole, a_row, b + at * length + whole * kPanel, depth - whole, c + at, c_row,
                       whole ? kOnes : shift, nothing);
}
#endif

// The first group of `rows` rows of `a` [., depth] times columns in panels `length` words long, into c [., columns]:
// c = a b, or with `shift`, c = shift_r c + a b. A group of pairs is multiplied whole, for matrix registers round in an
// order of their own, and which rows share one with others must not change a bit: there is room for it in a and c.
// Nothing is done beside it there.
template <class Word, class Beside>
INLINE void multiply_group(int rows, const Word* a, long a_row, const Word* b, long length, long depth, long columns,
                           float* c, long c_row, const float* shift, Beside& beside) {
#if defined(__AMX_BF16__)
    if constexpr (std::is_same_v<Word, Pair>)
        return multiply_pairs(a, a_row, b, length, depth, columns, c, c_row, shift);
#endif
    for (long at = 0; at < columns; at += kPanel)
        multiply_panel(rows < kGroupRows ? rows : kGroupRows, a, a_row, b + at * length, depth, c + at, c_row, shift,
                       beside);
}

// All rows times all columns.
template <class Word>
void multiply(int rows, const Word* a, long a_row, const Word* b, long length, long depth, long columns, float* c,
              long c_row, const float* shift = nullptr) {
    constexpr int kSome = std::is_same_v<Word, Pair> ? kGroupRows : kRegisterRows;
    Nothing nothing;
    for (int r = 0; r < rows; r += kSome)
        multiply_group(rows - r < kSome ? rows - r : kSome, a + r * a_row, a_row, b, length, depth, columns,
                       c + r * c_row, c_row, shift ? shift + r : nullptr, nothing);
}

}  // namespace
}  // namespace sightline
