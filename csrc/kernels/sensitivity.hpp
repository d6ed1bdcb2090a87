// What observations other than moments add to the gradient of the weights, and the gradients of their own operands.
#pragma once

#include "down.hpp"
#include "finish.hpp"

namespace sightline {
namespace {

// Rows of one block against keys j0 ... j0 + width - 1, as the backward sees them. Rows of s are kTile apart, those of
// the strips kStride.
struct Seen {
    const Gradients& gradients;
    const Block& block;
    int j0, width;
    const float* s;  // logits / scale, while they are there
    float scale;
    float *p, *d;

    const Request& request() const { return *gradients.request; }
    int there() const { return request().dims.m - j0 < width ? request().dims.m - j0 : width; }
    float lse(int i) const { return block.reference[i] == -INFINITY ? 0 : block.reference[i]; }
    long at(const View& v, int i, long j) const { return v.at(block.batch, block.row[i].head, block.row[i].query, j); }
};

INLINE void add_row(float factor, const float* x, int width, float* into) {
    for (int j = 0; j < width; j += kLanes) store(into + j, fma(splat(factor), load(x + j), load(into + j)));
}

// Row i's number c of an operand that each query has, such as Received.weights or ColumnMoment.w.
INLINE float of_query(const Seen& x, const Observation& o, int i, long c) {
    const Row row = x.block.row[i];
    const int head = heads_of(o, x.request().dims, row.head);
    return element(o.operand.data, o.operand.kind, o.operand.at(x.block.batch, head, row.query, c));
}

// Column c of a gradient [b, h, m, c], for the tile's keys.
INLINE void read_column(const Seen& x, const View& of, long c, float* out) {
    read_floats(of, of.at(x.block.batch, x.block.row[0].head, x.j0, c), of.stride[2], x.there(), out);
}

INLINE void towards_entropy(const Seen& x, const View& of) {
    for (int i = 0; i < x.block.rows; ++i) {
        const float h = element(of.data, of.kind, x.at(of, i, 0)), lse = x.lse(i);
        const float* s = x.s + i * kTile;
        float* d = x.d + i * kStride;
        for (int j = 0; j < x.width; j += kLanes) {
            const Floats below = larger(splat(-1e4f), fma(load(s + j), splat(x.scale), splat(-lse)));
            store(d + j, fma(splat(-h), below + 1.0f, load(d + j)));
        }
    }
}

// Received, and a moment down the columns: D = w g^T.
INLINE void towards_columns(const Seen& x, const Observation& o, const View& of) {
    alignas(64) float column[kTile] = {};
    for (long c = 0; c < (o.what == What::received ? 1 : o.count); ++c) {
        read_column(x, of, c, column);
        for (int i = 0; i < x.block.rows; ++i)
            add_row(o.operand ? of_query(x, o, i, c) : 1, column, x.width, x.d + i * kStride);
    }
}

INLINE void towards_blocks(const Seen& x, const Observation& o, const View& of) {
    for (int i = 0; i < x.block.rows; ++i) {
        const Row row = x.block.row[i];
        float* d = x.d + i * kStride;
        for (int j = 0; j < x.there();) {
            const long block = (x.j0 + j) / o.cols, stop = (block + 1) * o.cols - x.j0;
            const float g = element(of.data, of.kind, of.at(x.block.batch, row.head, row.query / o.rows, block));
            for (; j < stop && j < x.there(); ++j) d[j] += g;
        }
    }
}

INLINE void towards_segments(const Seen& x, const Observation& o, const View& of) {
    const int64_t* ids = static_cast<const int64_t*>(o.operand.data);
    const long first = o.operand.at(x.block.batch, heads_of(o, x.request().dims, x.block.row[0].head), x.j0);
    for (int i = 0; i < x.block.rows; ++i) {
        float* d = x.d + i * kStride;
        for (int j = 0; j < x.there();) {  // runs of one segment
            const int64_t id = ids[first + j * o.operand.stride[2]];
            const float g = id < 0 ? 0 : element(of.data, of.kind, x.at(of, i, id));
            for (; j < x.there() && ids[first + j * o.operand.stride[2]] == id; ++j) d[j] += g;
        }
    }
}

INLINE void towards_rows(const Seen& x, const Observation& o, const View& of) {
    alignas(64) float row[kTile] = {};
    const int64_t* chosen = static_cast<const int64_t*>(o.operand.data);
    for (long k = 0; k < o.count; ++k) {
        const int64_t i = chosen[k] - x.block.row[0].query;  // rows of one head follow one another
        if (i < 0 || i >= x.block.rows) continue;
        read_floats(of, of.at(x.block.batch, x.block.row[0].head, k, x.j0), of.stride[3], x.there(), row);
        add_row(1, row, x.width, x.d + i * kStride);
    }
}

INLINE void towards_entries(const Seen& x, const Observation& o, const View& of) {
    const int64_t* keys = static_cast<const int64_t*>(o.operand.data);
    for (int i = 0; i < x.block.rows; ++i) {
        const Row row = x.block.row[i];
        const long at = o.operand.at(x.block.batch, heads_of(o, x.request().dims, row.head), row.query);
        for (long c = 0; c < o.count; ++c) {
            const int64_t key = keys[at + c * o.operand.stride[3]], j = key - x.j0;
            if (key >= 0 && j >= 0 && j < x.width) x.d[i * kStride + j] += element(of.data, of.kind, x.at(of, i, c));
        }
    }
}

// Add what every observation but the moments says about these weights to d.
INLINE void add_sensitivities(const Seen& x) {
    const Request& r = x.request();
    for (size_t at = 0; at < r.observations.size(); ++at) {
        const Observation& o = r.observations[at];
        const View& of = x.gradients.of[at];
        if (!of) continue;
        switch (o.what) {
            case What::entropy:
                towards_entropy(x, of);
                break;
            case What::received:
            case What::column_moment:
                towards_columns(x, o, of);
                break;
            case What::block_mass:
                towards_blocks(x, o, of);
                break;
            case What::segment_mass:
                towards_segments(x, o, of);
                break;
            case What::rows:
                towards_rows(x, o, of);
                break;
            case What::entries:
                towards_entries(x, o, of);
                break;
            default:
                break;
        }
    }
}

// Whether an observation has an operand for each query that wants a gradient.
INLINE bool gathers(const Gradients& g, size_t at) {
    return g.operands[at] && g.request->observations[at].what != What::moment;
}

// Add this tile's part of dw = P g, of every such operand.
INLINE void gather_operands(const Seen& x) {
    const Request& r = x.request();
    alignas(64) float column[kTile] = {};
    for (size_t at = 0; at < r.observations.size(); ++at) {
        if (!gathers(x.gradients, at)) continue;
        const Observation& o = r.observations[at];
        const long count = o.what == What::received ? 1 : o.count;
        float* out = static_cast<float*>(const_cast<void*>(x.gradients.operands[at].data));
        for (long c = 0; c < count; ++c) {
            read_column(x, x.gradients.of[at], c, column);
            for (int i = 0; i < x.block.rows; ++i) {
                Floats total{};
                for (int j = 0; j < x.width; j += kLanes)
                    total = fma(load(x.p + i * kStride + j), load(column + j), total);
                out[cell(r, x.block.batch, x.block.row[i]) * count + c] += sum(total);
            }
        }
    }
}

// Whether anything that is added to logits wants a gradient.
INLINE bool biased(const Gradients& g) { return g.relative || g.row_sums || g.column_sums || g.additive; }

INLINE void add_floats(const float* x, int count, float* into) {
    int j = 0;
    for (; j + kLanes <= count; j += kLanes) store(into + j, load(into + j) + load(x + j));
    for (; j < count; ++j) into[j] += x[j];
}

// Add dS, which d holds, to the gradients of biases. relative, columns: sums of the rows' own head.
INLINE void add_to_biases(const Seen& x, float* relative, float* columns) {
    const Gradients& g = x.gradients;
    const int there = x.there(), n = x.request().dims.n;
    for (int i = 0; i < x.block.rows; ++i) {
        const float* d = x.d + i * kStride;
        const Row row = x.block.row[i];
        if (relative) add_floats(d, there, relative + x.j0 - row.query + n - 1);
        if (columns) add_floats(d, there, columns + x.j0);
        if (g.additive)
            add_floats(d, there, static_cast<float*>(const_cast<void*>(g.additive.data)) + x.at(g.additive, i, x.j0));
        if (!g.row_sums) continue;
        Floats total{};
        for (int j = 0; j < x.width; j += kLanes) total += load(d + j);
        g.row_sums[cell(x.request(), x.block.batch, row)] += sum(total);
    }
}

}  // namespace
}  // namespace sightline
