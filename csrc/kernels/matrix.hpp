// Products on matrix registers (Intel's AMX): sixteen rows of sixteen pairs times as many, summed up in floats.
#pragma once

#include "vector.hpp"

namespace sightline {
namespace {

#if defined(__AMX_BF16__)

constexpr bool kMatrices = true;
constexpr int kSide = 16;  // rows of a matrix register, and words of its rows

// What the registers hold and what memory does are the compiler's business too, so that it moves neither's accesses
// past the other's: its own functions for these instructions leave that out.
#define SIGHTLINE_MATRIX_LOAD(to, from, step) \
    asm volatile("tileloadd (%0,%1,1), %%tmm" #to : : "r"(from), "r"(step) : "memory")
#define SIGHTLINE_MATRIX_STORE(from, to, step) \
    asm volatile("tilestored %%tmm" #from ", (%0,%1,1)" : : "r"(to), "r"(step) : "memory")
#define SIGHTLINE_MATRIX_ZERO(which) asm volatile("tilezero %%tmm" #which : :)
#define SIGHTLINE_MATRIX_DOT(sums, rows, panel) \
    asm volatile("tdpbf16ps %%tmm" #panel ", %%tmm" #rows ", %%tmm" #sums : :)

// While it lives, this thread's matrix registers are all of full size.
struct Matrices {
    explicit Matrices(bool wanted) : wanted_(wanted) {
        alignas(64) struct {
            uint8_t palette, start, reserved[14];
            uint16_t bytes[16];
            uint8_t rows[16];
        } shape = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
        if (wanted) asm volatile("ldtilecfg %0" : : "m"(shape));
    }
    ~Matrices() {
        if (wanted_) asm volatile("tilerelease" : :);
    }
    Matrices(const Matrices&) = delete;
    Matrices& operator=(const Matrices&) = delete;

  private:
    bool wanted_;
};

// Matrix registers that rest for .6 us take .27 us to come back (Xeon, 2026). A product of whatever they hold, every
// now and then, keeps them awake and costs nothing beside other work. Nothing is kept in 4 to 7 from one product to
// another.
INLINE void keep_awake() { SIGHTLINE_MATRIX_DOT(7, 5, 6); }

// c [kSide, columns] times shift, row by row.
INLINE void scale_rows(float* c, long c_row, long columns, const float* shift) {
    unsigned moved = _mm512_cmp_ps_mask((__m512)load(shift), (__m512)splat(1.0f), _CMP_NEQ_UQ);
    for (; moved; moved &= moved - 1) {
        const int r = __builtin_ctz(moved);
        for (float *x = c + r * c_row, *end = x + columns; x < end; x += kLanes) store(x, load(x) * shift[r]);
    }
}

// kSide rows of `a` [., depth] times one panel or two of `b`, `next` words from one to the other, into
// c [kSide, panels * 2 kSide]: c = a b, or with `shift`, c = shift_r c + a b. depth: a multiple of kSide.
template <int kPanels, class Word>
__attribute__((noinline)) void multiply_matrices(const Word* a, long a_row, const Word* b, long next, long depth,
                                                 float* c, long c_row, const float* shift) {
    const long row = 4 * a_row, step = 4 * 2 * kSide, sums = 4 * c_row;
    if (shift) {
        scale_rows(c, c_row, kPanels * 2 * kSide, shift);
        SIGHTLINE_MATRIX_LOAD(0, c, sums);
        SIGHTLINE_MATRIX_LOAD(1, c + kSide, sums);
        if constexpr (kPanels > 1) {
            SIGHTLINE_MATRIX_LOAD(2, c + 2 * kSide, sums);
            SIGHTLINE_MATRIX_LOAD(3, c + 3 * kSide, sums);
        }
    } else {
        SIGHTLINE_MATRIX_ZERO(0);
        SIGHTLINE_MATRIX_ZERO(1);
        if constexpr (kPanels > 1) {
            SIGHTLINE_MATRIX_ZERO(2);
            SIGHTLINE_MATRIX_ZERO(3);
        }
    }
    for (long p = 0; p < depth; p += kSide) {
        const Word* panel = b + p * 2 * kSide;
        SIGHTLINE_MATRIX_LOAD(4, a + p, row);
        SIGHTLINE_MATRIX_LOAD(5, panel, step);
        SIGHTLINE_MATRIX_DOT(0, 4, 5);
        SIGHTLINE_MATRIX_LOAD(6, panel + kSide, step);
        SIGHTLINE_MATRIX_DOT(1, 4, 6);
        if constexpr (kPanels > 1) {
            SIGHTLINE_MATRIX_LOAD(7, panel + next, step);
            SIGHTLINE_MATRIX_DOT(2, 4, 7);
            SIGHTLINE_MATRIX_LOAD(5, panel + next + kSide, step);
            SIGHTLINE_MATRIX_DOT(3, 4, 5);
        }
    }
    SIGHTLINE_MATRIX_STORE(0, c, sums);
    SIGHTLINE_MATRIX_STORE(1, c + kSide, sums);
    if constexpr (kPanels > 1) {
        SIGHTLINE_MATRIX_STORE(2, c + 2 * kSide, sums);
        SIGHTLINE_MATRIX_STORE(3, c + 3 * kSide, sums);
    }
}

#else

constexpr bool kMatrices = false;

struct Matrices {
    explicit Matrices(bool) {}
    ~Matrices() {}
};

INLINE void keep_awake() {}

#endif

}  // namespace
}  // namespace sightline
