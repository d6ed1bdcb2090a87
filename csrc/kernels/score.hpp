// From products to logits: softcap, biases and masks, row by row of a tile. Plain calls skip all of it.
#pragma once

#include "exponential.hpp"
#include "pack.hpp"

namespace sightline {
namespace {

// Whether logits are anything but scaled products.
INLINE bool shaped(const Scores& s) { return s.softcap > 0 || s.relative || s.additive || s.allowed; }

// What is left to scale a tile's logits by, once `score` is through with them.
INLINE float remaining_scale(const Request& r) {
    const float scale = std::fabs(r.scores.scale);
    return pairs(r) && !shaped(r.scores) && scale > 0 ? scale : 1;
}

// What is added to keys j0 ... j0 + width - 1 of a row because of where they stand; keys past m get 0.
INLINE void add_biases(const Request& r, int batch, Row row, int j0, int width, float* x) {
    const Scores& s = r.scores;
    const int there = r.dims.m - j0 < width ? r.dims.m - j0 : width;
    alignas(64) float bias[kTile];
    const auto add = [&] {
        for (int j = there; j < width; ++j) bias[j] = 0;
        for (int j = 0; j < width; j += kLanes) store(x + j, load(x + j) + load(bias + j));
    };
    if (s.relative) {
        read_floats(s.relative, s.relative.at(0, row.head, 0, j0 - row.query + r.dims.n - 1), 1, there, bias);
        add();
    }
    if (s.additive) {
        read_floats(s.additive, s.additive.at(batch, row.head, row.query, j0), s.additive.stride[3], there, bias);
        add();
    }
    if (s.allowed) {
        const uint8_t* p = static_cast<const uint8_t*>(s.allowed.data) + s.allowed.at(batch, row.head, row.query, j0);
        for (int j = 0; j < there; ++j) bias[j] = p[j * s.allowed.stride[3]] ? 0.0f : -INFINITY;
        add();
    }
}

// -inf wherever the row does not admit a key.
INLINE void mask_row(Row row, int j0, int width, float* x) {
    if (row.lo <= j0 && row.hi >= j0 + width) return;
    const Ints lo = splat(row.lo - j0), hi = splat(row.hi - j0);
    Ints j = counting();
    for (int at = 0; at < width; at += kLanes, j += kLanes)
        store(x + at, pick((j >= lo) & (j < hi), load(x + at), splat(-INFINITY)));
}

// Turn products of rows i0 ... i1 - 1, at tile [i1 - i0, kTile], into logits / `scale`, which a shaped tile has no more
// need of: returns what is left to scale by.
float score(const Block& b, int i0, int i1, int j0, int width, float scale, float* tile) {
    const Request& r = *b.request;
    const bool shape = shaped(r.scores);
    for (int i = i0; i < i1; ++i) {
        float* x = tile + (i - i0) * kTile;
        if (shape) {
            const float cap = r.scores.softcap;
            for (int j = 0; j < width; j += kLanes) {
                Floats s = load(x + j) * scale;
                if (cap > 0) s = cap * hyperbolic_tangent(s / cap);
                store(x + j, s);
            }
            add_biases(r, b.batch, b.row[i], j0, width, x);
        }
        mask_row(b.row[i], j0, width, x);
    }
    return shape ? 1 : scale;
}

}  // namespace
}  // namespace sightline
