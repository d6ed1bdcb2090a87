// e^x and tanh x. Every product that is added to something is an explicit fma, so that the same x gives the same bits
// wherever the function is inlined.
#pragma once

#include "vector.hpp"

namespace sightline {
namespace {

constexpr float kDeep = -104.0f;  // e^x is 0 from here down
constexpr float kLog2e = 1.44269504088896341f;

// 2^y for y <= 127, within 2 units in the last place for small |y|, |y| eps beyond; 0 where no float holds it, exactly
// 1 at 0: a power of 2 times a polynomial of the rest, its constant term held at 1. Logits go through this one: a
// constant that scales them anyway absorbs log2 e. Where the machine can take 2^floor(y) off in one step the polynomial
// is fitted over [0, 1], and what is not a finite number needs no care; elsewhere over [-1/2, 1/2].
INLINE Floats power_of_2(Floats y) {
#if defined(__AVX512F__)
    const Floats f = (Floats)_mm512_reduce_ps((__m512)y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    constexpr float kFit[] = {1.8671303337e-3f, 9.0170297641e-3f, 5.5799913503e-2f, 2.4016445005e-1f, 6.9315131181e-1f};
#else
    const Floats bounded = larger(splat(-150.0f), y);
    const Floats magic = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves a rounded integer in the low bits
    const Floats turned = bounded + magic, f = bounded - (turned - magic);
    constexpr float kFit[] = {1.3264731371e-3f, 9.6715139259e-3f, 5.5507337329e-2f, 2.4022242061e-1f, 6.9314697761e-1f};
#endif
    Floats p = splat(kFit[0]);
#pragma GCC unroll 4
    for (int i = 1; i < 5; ++i) p = fma(p, f, splat(kFit[i]));
    p = fma(p, f, splat(1.0f));
#if defined(__AVX512F__)
    return (Floats)_mm512_scalef_ps((__m512)p, (__m512)y);
#else
    const Ints power = ((Ints)turned - (Ints)magic + 127) << 23;
    return (Floats)((Ints)(p * (Floats)power) & (y > splat(-126.0f)));
#endif
}

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
