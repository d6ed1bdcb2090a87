// Gradients: dS = P (D - offset), with D the gradient of the weights. A block's rows keep two strips, P and D, over all
// keys, so that the offset, their row sums, is known before dS is used and no product is made twice. Floats throughout.
#pragma once

#include "../memory.hpp"
#include "score.hpp"

namespace sightline {
namespace {

// A moment as the backward sees it: its values to multiply gradients with, the gradients themselves, and what it
// gathers.
struct MomentGradient {
    const Observation* what;
    const View* of;
    char* across;  // f as panels of keys [tiles of kPanel keys, width, kPanel]
    float* rows;   // gradient [kRows, width]
    char* down;    // gradient as panels of columns [columns, kRows, kPanel]
    float* into;   // df [m, columns]; none where not wanted
    float* out;
    long width, columns;
};

struct BackwardScratch {
    static constexpr int kMost = 8;  // moments with gradients
    MomentGradient moment[kMost];
    int moments = 0;
    char *across, *down;  // keys both ways
    float *queries, *tile_p, *tile_d, *turned_p, *turned_d, *dq, *dk, *ones;
    char* queries_down;
    float *strip_p, *strip_d;
    long columns, keys;

    BackwardScratch(const Request& r, const Gradients* g, Carver& at) {
        const size_t tiles = static_cast<size_t>((r.dims.m + kTile - 1) / kTile);
        const long d = r.dims.d;
        columns = up(d, kPanel);
        keys = up(r.dims.m, kTile);
        across = at.take<char>(static_cast<size_t>(4 * keys * d));
        down = at.take<char>(static_cast<size_t>(4 * keys * columns));
        queries = at.take<float>(static_cast<size_t>(kRows * d));
        queries_down = at.take<char>(static_cast<size_t>(4 * kRows * columns));
        turned_p = at.take<float>(kRows * kTile);
        turned_d = at.take<float>(kRows * kTile);
        dq = at.take<float>(static_cast<size_t>(kRows * columns));
        dk = at.take<float>(static_cast<size_t>(keys * columns));
        ones = at.take<float>(kTile);
        strip_p = at.take<float>(tiles * kRows * kTile);
        strip_d = at.take<float>(tiles * kRows * kTile);
        for (size_t i = 0; i < r.observations.size(); ++i) {
            const Observation& o = r.observations[i];
            if (o.what != What::moment || (g && !g->of[i])) continue;
            if (moments == kMost) break;
            MomentGradient& m = moment[moments++];
            m.what = &o;
            m.of = g ? &g->of[i] : nullptr;
            m.out = g ? g->moments[i] : nullptr;
            m.width = o.count;
            m.columns = up(o.count, kPanel);
            m.across = at.take<char>(static_cast<size_t>(4 * keys * m.width));
            m.rows = at.take<float>(static_cast<size_t>(kRows * m.width));
            m.down = at.take<char>(static_cast<size_t>(4 * kRows * m.columns));
            m.into = at.take<float>(static_cast<size_t>(keys * m.columns));
        }
    }
};

// c [rows, .] = or += a [rows, depth] times panels of kPanel columns `length` words long.
INLINE void multiply_all(int rows, const float* a, long a_row, const char* panels, long length, long depth,
                         long columns, float* c, long c_row, const float* ones) {
    for (long at = 0; at < columns; at += kPanel)
        multiply(rows, a, a_row, reinterpret_cast<const float*>(panels) + at * length, depth, c + at, c_row, ones);
}

// Rows of a block from a view, times a factor: one after the other, and one below the other in panels of columns.
INLINE void pack_rows(const Block& b, const View& v, long width, float factor, float* rows, char* down) {
    alignas(64) float row[kWidest + kPanel] = {};
    for (int i = 0; i < b.rows; ++i) {
        read_floats(v, v.at(b.batch, b.row[i].head, b.row[i].query), v.stride[3], static_cast<int>(width), row);
        for (long c = 0; c < width; ++c) row[c] *= factor;
        std::memcpy(rows + i * width, row, sizeof(float) * static_cast<size_t>(width));
        for (long c = 0; c < width; c += kPanel)
            std::memcpy(reinterpret_cast<float*>(down) + c * kRows + i * kPanel, row + c, sizeof(float) * kPanel);
    }
}

// a [rows, kTile] to [width, kRows]. Rows past the block's are never read.
INLINE void turn(const float* a, int rows, int width, float* out) {
    for (int i = 0; i < rows; i += kLanes)
        for (int j = 0; j < width; j += kLanes) {
            Ints square[kLanes];
#pragma GCC unroll 16
            for (int k = 0; k < kLanes; ++k) square[k] = load<Ints>(a + (i + k) * kTile + j);
            transpose(square);
#pragma GCC unroll 16
            for (int k = 0; k < kLanes; ++k) store(out + (j + k) * kRows + i, square[k]);
        }
}

// What reductions other than moments add to D, for one row of a tile.
INLINE void add_sensitivities(const Gradients& g, const Block& b, int i, int j0, int width, const float* s, float lse,
                              float* d) {
    const Request& r = *g.request;
    const Row row = b.row[i];
    const int there = r.dims.m - j0 < width ? r.dims.m - j0 : width;
    alignas(64) float more[kTile] = {};
    for (size_t at = 0; at < r.observations.size(); ++at) {
        const Observation& o = r.observations[at];
        const View& of = g.of[at];
        if (!of || o.what == What::moment) continue;
        if (o.what == What::entropy) {
            const float h = element(of.data, of.kind, of.at(b.batch, row.head, row.query));
            for (int j = 0; j < width; j += kLanes)
                store(d + j, fma(splat(-h), larger(splat(-1e4f), load(s + j) - lse) + 1.0f, load(d + j)));
        } else if (o.what == What::received) {
            float w = 1;
            if (o.operand)
                w = element(o.operand.data, o.operand.kind,
                            o.operand.at(b.batch, heads_of(o, r.dims, row.head), row.query));
            read_floats(of, of.at(b.batch, row.head, j0), of.stride[2], there, more);
            for (int j = 0; j < width; j += kLanes) store(d + j, fma(splat(w), load(more + j), load(d + j)));
        } else if (o.what == What::block_mass) {
            for (int j = 0; j < there; ++j)
                d[j] += element(of.data, of.kind, of.at(b.batch, row.head, row.query / o.rows, (j0 + j) / o.cols));
        }
    }
}

// Fill one tile of both strips, and add its part of each row's sum of P D.
INLINE void weigh_tile(const Gradients& g, const Block& b, const BackwardScratch& at, int j0, int width, float* p,
                       float* d, float* sums) {
    const Request& r = *g.request;
    const long keys = r.dims.d;
    for (int j = 0; j < width; j += kPanel)
        multiply(b.rows, at.queries, keys, reinterpret_cast<const float*>(at.across) + (j0 + j) * keys, keys, p + j,
                 kTile);
    score(b, j0, width, 1, p);
    for (int m = 0; m < at.moments; ++m) {
        const MomentGradient& x = at.moment[m];
        for (int j = 0; j < width; j += kPanel)
            multiply(b.rows, x.rows, x.width, reinterpret_cast<const float*>(x.across) + (j0 + j) * x.width, x.width,
                     d + j, kTile, m ? at.ones : nullptr);
    }
    for (int i = 0; i < b.rows; ++i) {
        float *s = p + i * kTile, *towards = d + i * kTile;
        const float lse = b.reference[i] == -INFINITY ? 0 : b.reference[i];
        if (!at.moments) std::memset(towards, 0, sizeof(float) * static_cast<size_t>(width));
        add_sensitivities(g, b, i, j0, width, s, lse, towards);
        Floats sum = load(sums + i * kLanes);
        for (int j = 0; j < width; j += kLanes) {
            const Floats e = exponential(load(s + j) - lse);
            store(s + j, e);
            sum = fma(e, load(towards + j), sum);
        }
        store(sums + i * kLanes, sum);
    }
}

// Use one tile of the strips: dS in place of D, then the gradients of queries, keys and values.
INLINE void spread_tile(const Gradients& g, const Block& b, const BackwardScratch& at, int j0, int width,
                        const float* p, float* d, const float* offset, bool first) {
    for (int i = 0; i < b.rows; ++i)
        for (int j = i * kTile; j < i * kTile + width; j += kLanes)
            store(d + j, load(p + j) * (load(d + j) - offset[i]));
    if (g.q) {
        const char* keys = at.down + 4 * static_cast<long>(j0) * kPanel;
        multiply_all(b.rows, d, kTile, keys, at.keys, width, at.columns, at.dq, at.columns, first ? nullptr : at.ones);
    }
    if (g.k) {
        turn(d, b.rows, width, at.turned_d);
        multiply_all(width, at.turned_d, kRows, at.queries_down, kRows, b.rows, at.columns, at.dk + j0 * at.columns,
                     at.columns, at.ones);
    }
    bool turned = false;
    for (int m = 0; m < at.moments; ++m) {
        const MomentGradient& x = at.moment[m];
        if (!x.out) continue;
        if (!turned) turn(p, b.rows, width, at.turned_p);
        turned = true;
        multiply_all(width, at.turned_p, kRows, x.down, kRows, b.rows, x.columns, x.into + j0 * x.columns, x.columns,
                     at.ones);
    }
}

void backward_block(const Gradients& g, Block& b, const BackwardScratch& at) {
    const Request& r = *g.request;
    alignas(64) float sums[kRows * kLanes] = {};
    float offset[kRows];
    pack_rows(b, r.q, r.dims.d, r.scores.scale, at.queries, at.queries_down);
    for (int m = 0; m < at.moments; ++m)
        pack_rows(b, *at.moment[m].of, at.moment[m].width, 1, at.moment[m].rows, at.moment[m].down);
    const long cell = (static_cast<long>(b.batch) * r.dims.h + b.row[0].head) * r.dims.n + b.row[0].query;
    for (int i = 0; i < b.rows; ++i) b.reference[i] = r.lse[cell + i];
    const auto tiles = [&](auto use) {
        for (int j0 = b.j0 / kTile * kTile; j0 < b.j1; j0 += kTile) {
            const int width = static_cast<int>(up(b.j1 - j0 < kTile ? b.j1 - j0 : kTile, kPanel));
            const long strip = static_cast<long>(j0) * kRows;
            use(j0, width, at.strip_p + strip, at.strip_d + strip);
        }
    };
    tiles([&](int j0, int width, float* p, float* d) { weigh_tile(g, b, at, j0, width, p, d, sums); });
    for (int i = 0; i < b.rows; ++i) {
        const View& of = g.of_lse;
        const float moved = of ? element(of.data, of.kind, of.at(b.batch, b.row[i].head, b.row[i].query)) : 0;
        g.offset[cell + i] = offset[i] = sum(load(sums + i * kLanes)) - moved;
    }
    bool first = true;
    tiles([&](int j0, int width, const float* p, float* d) {
        spread_tile(g, b, at, j0, width, p, d, offset, first);
        first = false;
    });
    if (g.q && !first)
        for (int i = 0; i < b.rows; ++i)
            for (long c = 0; c < r.dims.d; ++c)
                g.q[(cell + i) * r.dims.d + c] = r.scores.scale * at.dq[i * at.columns + c];
}

void backward(const Gradients& g, Block* blocks, long count, char* memory) {
    const Request& r = *g.request;
    const int batch = blocks[0].batch, head = blocks[0].key_head, m = r.dims.m, d = r.dims.d;
    Carver carver(memory);
    BackwardScratch at(r, &g, carver);
    for (int i = 0; i < kTile; ++i) at.ones[i] = 1;
    pack_across(r.k, d, false, batch, head, 0, m, at.across);
    pack_down(r.k, d, false, batch, head, 0, m, at.keys, at.down);
    std::memset(at.dk, 0, sizeof(float) * static_cast<size_t>(at.keys * at.columns));
    for (int i = 0; i < at.moments; ++i) {
        MomentGradient& x = at.moment[i];
        const int own = heads_of(*x.what, r.dims, blocks[0].row[0].head);
        pack_across(x.what->operand, static_cast<int>(x.width), false, batch, own, 0, m, x.across);
        std::memset(x.into, 0, sizeof(float) * static_cast<size_t>(at.keys * x.columns));
    }
    for (long i = 0; i < count; ++i) backward_block(g, blocks[i], at);
    const long first = (static_cast<long>(batch) * r.dims.hk + head) * m;
    const auto copy = [&](float* out, const float* from, long width, long columns) {
        for (long j = 0; out && j < m; ++j)
            std::memcpy(out + (first + j) * width, from + j * columns, sizeof(float) * static_cast<size_t>(width));
    };
    copy(g.k, at.dk, d, at.columns);
    for (int i = 0; i < at.moments; ++i)
        copy(at.moment[i].out, at.moment[i].into, at.moment[i].width, at.moment[i].columns);
}

size_t backward_bytes(const Request& r) {
    Carver carver(nullptr);
    BackwardScratch{r, nullptr, carver};
    return carver.used();
}

}  // namespace
}  // namespace sightline
