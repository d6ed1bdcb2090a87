// e^x and tanh x. Every product that is added to something is an explicit fma, so that the same x gives the same bits
// wherever the function is inlined.
#pragma once

#include "vector.hpp"

namespace sightline {
namespace {

constexpr float kDeep = -104.0f;  // e^x is 0 from here down
constexpr float kLog2e = 1.44269504088896341f;

// 2^y for y <= 127, within 2.5e-7 of it, exactly 1 at 0, 0 where no float holds it. Logits go through this one: a
// constant that scales them anyway absorbs log2 e.
#if defined(__AVX512F__)

// 2^y = 2^floor(y) 2^(k/32) 2^r with 0 <= r < 1/32, and 2^r is a parabola, c ((r + 1.428)^2 + 2.081), constants chosen
// so that 0 gives 1. Additions, the look-up and the scaling cost nothing beside a product; multiplications do, and are
// three. What is not a finite number needs no care. kRoots: c 2^(k/32).
alignas(64) constexpr float kRoots[] = {
    2.426526546e-01f, 2.479660511e-01f, 2.533957958e-01f, 2.589444518e-01f, 2.646145821e-01f, 2.704088986e-01f,
    2.763300836e-01f, 2.823809385e-01f, 2.885642648e-01f, 2.948830128e-01f, 3.013401031e-01f, 3.079385757e-01f,
    3.146815598e-01f, 3.215721846e-01f, 3.286136985e-01f, 3.358094096e-01f, 3.431626856e-01f, 3.506769538e-01f,
    3.583557904e-01f, 3.662027419e-01f, 3.742215633e-01f, 3.824159503e-01f, 3.907897472e-01f, 3.993469477e-01f,
    4.080914855e-01f, 4.170275331e-01f, 4.261592627e-01f, 4.354909360e-01f, 4.450269341e-01f, 4.547717571e-01f,
    4.647299647e-01f, 4.749062061e-01f};

INLINE Floats power_of_2(Floats y) {
    constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    // y rounded down to 32nds: its low five bits, in the low bits of the sum, choose the root.
    const __m512i turned = (__m512i)_mm512_add_round_ps((__m512)y, _mm512_set1_ps(393216.0f), kDown);
    const __m512 root = _mm512_permutex2var_ps(_mm512_load_ps(kRoots), turned, _mm512_load_ps(kRoots + 16));
    const __m512 u = _mm512_add_ps(_mm512_reduce_ps((__m512)y, 5 << 4 | kDown), _mm512_set1_ps(1.42822206f));
    return (Floats)_mm512_scalef_ps(_mm512_mul_ps(_mm512_fmadd_ps(u, u, _mm512_set1_ps(2.08129883f)), root), (__m512)y);
}

#else

// A power of 2 times a polynomial of the rest, fitted over [-1/2, 1/2], its constant term held at 1.
INLINE Floats power_of_2(Floats y) {
    const Floats bounded = larger(splat(-150.0f), y);
    const Floats magic = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves a rounded integer in the low bits
    const Floats turned = bounded + magic, f = bounded - (turned - magic);
    constexpr float kFit[] = {1.3264731371e-3f, 9.6715139259e-3f, 5.5507337329e-2f, 2.4022242061e-1f, 6.9314697761e-1f};
    Floats p = splat(kFit[0]);
#pragma GCC unroll 4
    for (int i = 1; i < 5; ++i) p = fma(p, f, splat(kFit[i]));
    p = fma(p, f, splat(1.0f));
    const Ints power = ((Ints)turned - (Ints)magic + 127) << 23;
    return (Floats)((Ints)(p * (Floats)power) & (y > splat(-126.0f)));
}

#endif

// e^x for x <= 88, as closely.
INLINE Floats exponential(Floats x) { return power_of_2(larger(splat(kDeep), x) * kLog2e); }

// tanh x, within a few units in the last place.
INLINE Floats hyperbolic_tangent(Floats x) {
    const Floats size = larger(x, -x), z = x * x;
    Floats p = splat(-5.70498872745e-3f);
    p = fma(p, z, splat(2.06390887954e-2f));
    p = fma(p, z, splat(-5.37397155531e-2f));
    p = fma(p, z, splat(1.33314422036e-1f));
    p = fma(p, z, splat(-3.33332819422e-1f));
    const Floats small = fma(p * z, x, x);
    const Floats e = exponential(-2.0f * size);
    const Floats far = (1.0f - e) / (1.0f + e);
    return pick(size < splat(0.625f), small, pick(x < Floats{}, -far, far));
}

}  // namespace
}  // namespace sightline
