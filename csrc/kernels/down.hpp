// The product with a block's rows as its depth, c += a^T b: what keys gather from rows. Read down its columns, a needs
// no transpose; pairs of bf16 then lie along its rows.
#pragma once

#include "../kernels.hpp"
#include "multiply.hpp"
#include "transpose.hpp"

namespace sightline {
namespace {

// Floats from one row of a strip to the next: rows a power of two apart would share a few lines of the nearest cache.
constexpr long kStride = kTile + 16;

#if defined(__AVX512BF16__)
// Numbers of two rows as pairs, column by column.
INLINE void store_row_pairs(Pair* p, Floats even, Floats odd) {
    const __m512i turn = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                          21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi16(turn, both));
}
#else
INLINE void store_row_pairs(Pair*, Floats, Floats) {}
#endif

// R columns of `a` [depth, .] times one panel `b` [depth, kPanel], added to c [R, kPanel].
template <class Word, int R>
__attribute__((noinline)) void multiply_down_tile(const Word* a, long a_row, const Word* b, long depth, float* c,
                                                  long c_row) {
    Floats acc[R][2];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        acc[r][0] = acc[r][1] = Floats{};
        __builtin_prefetch(c + r * c_row, 1, 3);  // sums of many keys lie far away
        __builtin_prefetch(c + r * c_row + kLanes, 1, 3);
    }
    for (long p = 0; p < depth; ++p) {
        const auto b0 = word_vector(b + p * kPanel), b1 = word_vector(b + p * kPanel + kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const auto w = word_everywhere(a + p * a_row + r);
            acc[r][0] = dot(acc[r][0], w, b0);
            acc[r][1] = dot(acc[r][1], w, b1);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        float* row = c + r * c_row;
        store(row, load(row) + acc[r][0]);
        store(row + kLanes, load(row + kLanes) + acc[r][1]);
    }
}

template <class Word, int R>
void multiply_down_rest(int keys, const Word* a, long a_row, const Word* b, long depth, float* c, long c_row) {
    if constexpr (R > 0) {
        if (keys == R) return multiply_down_tile<Word, R>(a, a_row, b, depth, c, c_row);
        multiply_down_rest<Word, R - 1>(keys, a, a_row, b, depth, c, c_row);
    }
}

#if defined(__AMX_BF16__)
// The same for a group of keys and all columns, on matrix registers: pairs stand one below the other in `a`, and are
// turned.
INLINE void multiply_down_pairs(const Pair* a, long a_row, const Pair* b, long length, long depth, float* c,
                                long columns) {
    constexpr long kMost = kBand * kBandRows / 2;
    alignas(64) Pair turned[kGroupRows * kMost];
    const long whole = depth / kSide * kSide;
    for (long p = 0; p < whole; p += kSide) {
        Ints square[kSide];
#pragma GCC unroll 16
        for (int i = 0; i < kSide; ++i) square[i] = load<Ints>(a + (p + i) * a_row);
        transpose(square);
#pragma GCC unroll 16
        for (int i = 0; i < kSide; ++i) store(turned + i * kMost + p, square[i]);
    }
    if (whole) multiply_pairs(turned, kMost, b, length, whole, columns, c, columns, kOnes);
    if (whole == depth) return;
    for (long at = 0; at < columns; at += kPanel)
        for (int j = 0; j < kGroupRows; j += kRegisterRows) {
            const int some = kGroupRows - j < kRegisterRows ? kGroupRows - j : kRegisterRows;
            multiply_down_rest<Pair, kRegisterRows>(some, a + whole * a_row + j, a_row,
                                                    b + at * length + whole * kPanel, depth - whole,
                                                    c + j * columns + at, columns);
        }
}
#endif

// c [keys, columns] += a^T b: a [depth, keys], b in panels of columns `length` words long.
template <class Word>
void multiply_down(int keys, const Word* a, long a_row, const Word* b, long length, long depth, float* c,
                   long columns) {
    int done = 0;
#if defined(__AMX_BF16__)
    if constexpr (std::is_same_v<Word, Pair>)
        for (; done + kGroupRows <= keys; done += kGroupRows)
            multiply_down_pairs(a + done, a_row, b, length, depth, c + done * columns, columns);
#endif
    for (long at = 0; at < columns; at += kPanel)
        for (int j = done; j < keys; j += kRegisterRows) {
            const int some = keys - j < kRegisterRows ? keys - j : kRegisterRows;
            multiply_down_rest<Word, kRegisterRows>(some, a + j, a_row, b + at * length, depth, c + j * columns + at,
                                                    columns);
        }
}

}  // namespace
}  // namespace sightline
