// e^x and tanh x. Every product that is added to something is an explicit fma, so that the same x gives the same bits
// wherever the function is inlined.
#pragma once

#include "vector.hpp"

namespace sightline {
namespace {

constexpr float kDeep = -104.0f;  // e^x is 0 from here down

// e^x for x <= 88, within 1.5 units in the last place; exactly 0 below the smallest normal result or a little further.
INLINE Floats exponential(Floats x) {
    const Floats magic = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves a rounded integer in the low bits
    x = larger(splat(kDeep), x);
    const Floats turned = fma(x, splat(1.44269504088896341f), magic);
    const Floats n = turned - magic;
    Floats f = fma(n, splat(-0.693359375f), x);
    f = fma(n, splat(2.12194440e-4f), f);
    Floats p = splat(1.9875691500e-4f);
    p = fma(p, f, splat(1.3981999507e-3f));
    p = fma(p, f, splat(8.3334519073e-3f));
    p = fma(p, f, splat(4.1665795894e-2f));
    p = fma(p, f, splat(1.6666665459e-1f));
    p = fma(p, f, splat(5.0000001201e-1f));
    p = fma(p, f * f, f) + 1.0f;
#if defined(__AVX512F__)
    return (Floats)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    const Ints power = ((Ints)turned - (Ints)magic + 127) << 23;
    return (Floats)((Ints)(p * (Floats)power) & (x > splat(-87.3f)));
#endif
}

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
