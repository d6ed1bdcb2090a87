// Vectors of floats in the compiler's own notation, and the few operations that need an instruction set's name.
// Compiled once per instruction set, with everything in a namespace that no other compilation shares.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../half.hpp"

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace sightline {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kRegisterRows = 12;  // rows of a register tile, two vectors wide
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kRegisterRows = 6;
#elif defined(__aarch64__)
constexpr int kLanes = 4;
constexpr int kRegisterRows = 12;
#else
constexpr int kLanes = 4;
constexpr int kRegisterRows = 6;
#endif
constexpr int kPanel = 2 * kLanes;
// kTile: keys scored at a time; tiles start at its multiples, whatever the rows. kGroupRows: rows multiplied at once,
// those of a register tile or of a matrix register. kBlockRows: rows that go over the keys together.
#if defined(__AMX_BF16__)
constexpr int kTile = 128, kGroupRows = 16, kBlockRows = 96;
#else
constexpr int kTile = 256, kGroupRows = kRegisterRows, kBlockRows = 48;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));

#define INLINE ALWAYS_INLINE

template <class V = Floats, class T>
INLINE V load(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class V, class T>
INLINE void store(T* p, V v) {
    std::memcpy(p, &v, sizeof v);
}

INLINE Floats splat(float x) { return x - Floats{}; }
INLINE Ints splat(int32_t x) { return x - Ints{}; }

INLINE Floats pick(Ints where, Floats a, Floats b) { return where ? a : b; }
INLINE Ints pick(Ints where, Ints a, Ints b) { return where ? a : b; }

// 0, 1, 2, ...
INLINE Ints counting() {
    Ints v;
    for (int i = 0; i < kLanes; ++i) v[i] = i;
    return v;
}

#if defined(__AVX512F__)

INLINE Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
INLINE Floats larger(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE Floats smaller(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE float sum(Floats a) { return _mm512_reduce_add_ps((__m512)a); }
INLINE bool any_lane(Ints where) { return _mm512_test_epi32_mask((__m512i)where, (__m512i)where) != 0; }
INLINE float largest(Floats a) { return _mm512_reduce_max_ps((__m512)a); }
INLINE float smallest(Floats a) { return _mm512_reduce_min_ps((__m512)a); }

#else

INLINE Floats fma(Floats a, Floats b, Floats c) {
#if defined(__FMA__) && defined(__AVX2__)
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    Floats r;
    for (int i = 0; i < kLanes; ++i) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return r;
#else
    return a * b + c;  // never contracted: see CMakeLists.txt
#endif
}

// These give the second where either is not a number.
INLINE Floats larger(Floats a, Floats b) {
#if defined(__AVX2__)
    return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return pick(a > b, a, b);
#endif
}
INLINE Floats smaller(Floats a, Floats b) {
#if defined(__AVX2__)
    return (Floats)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return pick(a < b, a, b);
#endif
}

INLINE float sum(Floats a) {
    for (int step = kLanes / 2; step; step /= 2)
        for (int i = 0; i < step; ++i) a[i] += a[i + step];
    return a[0];
}

INLINE bool any_lane(Ints where) {
    int any = 0;
    for (int i = 0; i < kLanes; ++i) any |= where[i];
    return any != 0;
}

INLINE float largest(Floats a) {
    for (int step = kLanes / 2; step; step /= 2)
        for (int i = 0; i < step; ++i) a[i] = a[i] > a[i + step] ? a[i] : a[i + step];
    return a[0];
}

INLINE float smallest(Floats a) { return -largest(-a); }

#endif

}  // namespace
}  // namespace sightline
