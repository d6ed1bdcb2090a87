// How large numbers are.
#pragma once

#include "../half.hpp"
#include "../kernels.hpp"

namespace sightline {
namespace {

template <class T, class Convert>
INLINE void gather_largest(const void* data, long at, long step, long width, uint32_t& most, Convert convert) {
    const T* x = static_cast<const T*>(data) + at;
    const auto take = [&](float f) __attribute__((always_inline)) {
        uint32_t bits;
        std::memcpy(&bits, &f, sizeof bits);
        bits &= 0x7FFFFFFF;
        most = bits > most ? bits : most;
    };
    if (step == 1)
        for (long c = 0; c < width; ++c) take(convert(x[c]));
    else
        for (long c = 0; c < width; ++c) take(convert(x[c * step]));
}

// The largest magnitude in rows i0 ... i1 - 1 of [., ., ., width], as the bits of a float: they order as magnitudes do,
// with what is not a number last.
uint32_t largest_magnitude(const View& v, int batch, int head, long i0, long i1, long width) {
    uint32_t most = 0;
    for (long i = i0; i < i1; ++i) {
        const long at = v.at(batch, head, i), step = v.stride[3];
        switch (v.kind) {
            case Kind::bf16:
                gather_largest<uint16_t>(v.data, at, step, width, most, [](uint16_t x) { return from_bf16(x); });
                break;
            case Kind::f16:
                gather_largest<uint16_t>(v.data, at, step, width, most, [](uint16_t x) { return from_f16(x); });
                break;
            case Kind::f64:
                gather_largest<double>(v.data, at, step, width, most, [](double x) { return float(x); });
                break;
            default:
                gather_largest<float>(v.data, at, step, width, most, [](float x) { return x; });
        }
    }
    return most;
}

}  // namespace
}  // namespace sightline
