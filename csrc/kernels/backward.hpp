// Gradients: dS = P (D - offset), with D the gradient of the weights and the offset the row sum of P D. Where results
// do not tell it, a band's rows keep strips of P and D over all keys, or make one of them or both once more, whichever
// takes least. Where operands are bf16, products multiply pairs, for which P and dS are rounded; all sums and
// everything else are floats.
#pragma once

#include "offsets.hpp"

namespace sightline {
namespace {

// c [rows, .] = or += a [rows, depth] times panels of columns `length` words long.
template <class Word>
INLINE void multiply_all(int rows, const Word* a, long a_row, const char* panels, long length, long depth, long columns,
                         float* c, const float* ones) {
    multiply(rows, a, a_row, reinterpret_cast<const Word*>(panels), length, depth, columns, c, columns, ones);
}

// dS of a block in place of D, times the scale, as queries and keys need it; biases take it as it is.
INLINE void turn_into_scores(const Band& x, int b, int j0, int width, float* p, float* d, const float* slope) {
    const Request& r = *x.g.request;
    const Block& block = x.blocks[b];
    const float* offset = x.at.offset + b * kBandRows;
    for (int i = 0; i < block.rows && !x.known; ++i)
        for (long j = i * kStride; j < i * kStride + width; j += kLanes)
            store(d + j, load(p + j) * (load(d + j) - offset[i]));
    if (x.known && x.plain) return;
    const int head = block.row[0].head - x.share.key_head * r.dims.group();
    if (biased(x.g))
        add_to_biases(Seen{x.g, block, j0, width, nullptr, 1, p, d},
                      x.g.relative ? x.sums.relative + static_cast<long>(head) * (r.dims.n + r.dims.m - 1) : nullptr,
                      x.g.column_sums ? x.sums.columns + static_cast<long>(head) * r.dims.m : nullptr);
    for (int i = 0; i < block.rows; ++i)
        for (long j = i * kStride; j < i * kStride + width; j += kLanes)
            store(d + j, load(d + j) * (slope ? r.scores.scale * load(slope + j) : splat(r.scores.scale)));
}

// The same as pairs both ways, where nothing else needs it.
template <bool kMade>
INLINE void pair_scores(const Band& x, int b, int width, int most, const float* p, const float* d) {
    const float scale = x.g.request->scores.scale;
    const Block& block = x.blocks[b];
    const long row = static_cast<long>(b) * kBandRows;
    for (int i = 0; i < block.rows; i += 2) {
        const bool both = i + 1 < block.rows;
        const int next = both ? i + 1 : i;
        const Floats minus[2] = {splat(-scale * x.at.offset[row + i]), splat(-scale * x.at.offset[row + next])};
        const auto scores = [&](int odd, int j) {
            const long at = (odd ? next : i) * kStride + j;
            return kMade ? load(d + at) : load(p + at) * fma(load(d + at), splat(scale), minus[odd]);
        };
        Pair* across = x.at.d_across + (row + i) * (kTile / 2);
        Pair* down = x.at.d_down + (row + i) / 2 * kStride;
        for (int j = 0; j < width; j += kPanel) {
            const Floats a = scores(0, j), b = scores(0, j + kLanes);
            const Floats c = both ? scores(1, j) : Floats{}, e = both ? scores(1, j + kLanes) : Floats{};
            store_pairs(across + j / 2, a, b);
            if (both) store_pairs(across + kTile / 2 + j / 2, c, e);
            store_row_pairs(down + j, a, c);
            store_row_pairs(down + j + kLanes, b, e);
        }
        if (most > width) std::memset(down + width, 0, sizeof(Pair) * static_cast<size_t>(most - width));
    }
}

// Use a tile of the strips: the gradients of queries, keys and biases.
INLINE void spread_tile(const Band& x, int j0, float* p, float* d, const float* slope, bool* fresh) {
    const Reach reach(x.blocks, x.count, j0);
    const bool in_place = !x.paired || !x.plain || x.known;
    for (int b = reach.first; b <= reach.last; ++b) {
        const int width = reach.width[b];
        const long row = static_cast<long>(b) * kBandRows, at = row * kStride;
        if (in_place) turn_into_scores(x, b, j0, width, p + at, d + at, slope ? slope + at : nullptr);
        if (!x.g.q && !x.g.k) continue;
        if (x.paired && in_place) pair_scores<true>(x, b, width, reach.most, p + at, d + at);
        else if (x.paired) pair_scores<false>(x, b, width, reach.most, p + at, d + at);
        if (!x.g.q || !width) continue;
        float* dq = x.at.dq + row * x.at.columns;
        const float* ones = fresh[b] ? nullptr : x.at.ones;
        const int words = x.paired ? 2 : 1;
        const char* keys = x.keys.down + 4L * j0 / words * kPanel;
        if (x.paired)
            multiply_all(x.blocks[b].rows, x.at.d_across + row * (kTile / 2), kTile / 2, keys, x.keys.length, width / 2,
                         x.at.columns, dq, ones);
        else multiply_all(x.blocks[b].rows, d + at, kStride, keys, x.keys.length, width, x.at.columns, dq, ones);
        fresh[b] = false;
    }
    if (x.g.k) gather(x, reach, j0, x.paired, d, x.at.d_down, x.at.queries_down, x.at.columns, x.sums.k);
}

INLINE void write_queries(const Band& x, const bool* fresh) {
    const long d = x.g.request->dims.d;
    for (int b = 0; b < x.count; ++b) {
        float* dq = x.at.dq + b * kBandRows * x.at.columns;
        if (fresh[b]) std::memset(dq, 0, sizeof(float) * static_cast<size_t>(kBandRows * x.at.columns));
        for (int i = 0; i < x.blocks[b].rows; ++i)
            write_row(dq + i * x.at.columns, 1, d, const_cast<void*>(x.g.q.data), x.g.q.kind,
                      cell(*x.g.request, x.share.batch, x.blocks[b].row[i]) * d);
    }
}

void backward_add(const Share& share, Block* blocks, int count) {
    Band x(share, blocks, count);
    const Matrices matrices(x.paired || x.third);
    const Request& r = *x.g.request;
    int j0 = r.dims.m, j1 = 0;
    for (int b = 0; b < count; ++b) {
        Block& block = blocks[b];
        if (block.j0 < block.j1 && block.j0 < j0) j0 = block.j0;
        if (block.j0 < block.j1 && block.j1 > j1) j1 = block.j1;
        for (int i = 0; i < block.rows; ++i) block.reference[i] = r.lse[cell(r, share.batch, block.row[i])];
    }
    std::memset(x.at.sums, 0, sizeof(float) * static_cast<size_t>(x.at.rows * kLanes));
    for (int i = 0; i < kBandRows; ++i) x.at.ones[i] = 1;
    pack_band(x);
    const auto tiles = [&](auto use) {
        for (int j = j0 / kTile * kTile; j < j1; j += kTile) {
            const long tile = j / kTile, at = tile * x.at.p_strip;
            use(j, x.at.p + at, x.at.d + tile * x.at.d_strip, r.scores.softcap > 0 ? x.at.slope + at : nullptr);
        }
    };
    if (!x.known) tiles([&](int j, float* p, float* d, float* slope) { weigh_tile(x, j, p, d, slope, true); });
    settle_offsets(x);
    bool fresh[kBand];
    for (bool& f : fresh) f = true;
    tiles([&](int j, float* p, float* d, float* slope) {
        if (x.known || share.offsets == Offsets::twice) weigh_tile(x, j, p, d, slope, x.known);
        if (share.offsets == Offsets::weights) remake(x, j, d);
        if (x.g.q || x.g.k || biased(x.g)) spread_tile(x, j, p, d, slope, fresh);
    });
    if (x.g.q) write_queries(x, fresh);
}

const BackwardKernels backward_kernels = {backward_packed_bytes, backward_sums_bytes, backward_scratch_bytes,
                                          backward_remakes,      backward_pack,       backward_start,
                                          backward_add,          backward_join};

}  // namespace
}  // namespace sightline
