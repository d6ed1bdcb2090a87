// How large numbers are.
#pragma once

#include "pack.hpp"

namespace sightline {
namespace {

// The largest magnitude in rows i0 ... i1 - 1 of [., ., ., width], as the bits of a float: they order as magnitudes do,
// with what is not a number last.
uint32_t largest_magnitude(const View& v, int batch, int head, long i0, long i1, long width) {
    alignas(64) float row[kWidest];
    uint32_t most = 0;
    for (long i = i0; i < i1; ++i) {
        read_floats(v, v.at(batch, head, i), v.stride[3], static_cast<int>(width), row);
        for (long c = 0; c < width; ++c) {
            uint32_t bits;
            std::memcpy(&bits, row + c, sizeof bits);
            bits &= 0x7FFFFFFF;
            most = bits > most ? bits : most;
        }
    }
    return most;
}

}  // namespace
}  // namespace sightline
