// Settled reductions: weights are the strip's e^(s - its reference) times a factor per row and tile, swept once.
#pragma once

#include "finish.hpp"

namespace sightline {
namespace {

// A tile of one head's rows i0 ... i1 - 1; weight (i, j) is factor_i times e_ij. Keys j0 ... j0 + width - 1.
struct Weights {
    const Block& block;
    int i0, i1;
    int j0, width;
    const float* e;
    const float* factor;  // [kRows]

    const float* row(int i) const { return e + i * kTile; }
    int query(int i) const { return block.row[i].query; }
};

// kWide vectors of keys at once, so that a row's lie side by side: memory far away is read in its order.
template <bool kMax, int kWide>
INLINE void down_some(const float* e, const float* a, int rows, float* out) {
    Floats x[kWide];
#pragma GCC unroll 16
    for (int v = 0; v < kWide; ++v) x[v] = Floats{};
    for (int i = 0; i < rows; ++i, e += kTile) {
        const Floats f = splat(a[i]);
#pragma GCC unroll 16
        for (int v = 0; v < kWide; ++v) {
            const Floats p = load(e + v * kLanes);
            x[v] = kMax ? larger(x[v], f * p) : fma(f, p, x[v]);
        }
    }
#pragma GCC unroll 16
    for (int v = 0; v < kWide; ++v) store(out + v * kLanes, x[v]);
}

// sum_i a_i e_ij over rows i0 ... i1 - 1, or the largest a_i e_ij: [width].
template <bool kMax>
__attribute__((noinline)) void down_columns(const Weights& w, int i0, int i1, const float* a, float* out) {
    constexpr int kWide = kLanes == 16 && kTile == 256 ? 16 : 8;
    int j = 0;
    for (; j + kWide * kLanes <= w.width; j += kWide * kLanes)
        down_some<kMax, kWide>(w.row(i0) + j, a + i0, i1 - i0, out + j);
    for (; j < w.width; j += kPanel) down_some<kMax, 2>(w.row(i0) + j, a + i0, i1 - i0, out + j);
}

// Keys of the tile that a window over keys holds.
INLINE int shown(const Weights& w, const Window& into) {
    const long end = into.col0 + into.cols;
    return w.j0 + w.width <= end ? w.width : static_cast<int>(end - w.j0);
}

INLINE void received(const Weights& w, const Observation& o, const Window& into, const float* plain) {
    alignas(64) float weighted[kTile];
    alignas(64) float a[kRows];
    const Request& r = *w.block.request;
    if (o.operand) {
        for (int i = w.i0; i < w.i1; ++i) {
            const int head = heads_of(o, r.dims, w.block.row[i].head);
            a[i] = w.factor[i] * element(o.operand.data, o.operand.kind, o.operand.at(w.block.batch, head, w.query(i)));
        }
        down_columns<false>(w, w.i0, w.i1, a, weighted);
        plain = weighted;
    }
    float* out = into.data + (w.j0 - into.col0);
    for (int j = 0, stop = shown(w, into); j < stop; ++j) out[j] += plain[j];
}

INLINE void column_max(const Weights& w, const Window& into) {
    alignas(64) float most[kTile];
    down_columns<true>(w, w.i0, w.i1, w.factor, most);
    float* out = into.data + (w.j0 - into.col0);
    for (int j = 0, stop = shown(w, into); j < stop; ++j) out[j] = most[j] > out[j] ? most[j] : out[j];
}

INLINE void column_moment(const Weights& w, const Observation& o, const Window& into) {
    alignas(64) float weighted[kTile];
    alignas(64) float a[kRows];
    const Request& r = *w.block.request;
    const int head = heads_of(o, r.dims, w.block.row[w.i0].head);
    for (long c = 0; c < o.count; ++c) {
        for (int i = w.i0; i < w.i1; ++i)
            a[i] =
                w.factor[i] * element(o.operand.data, o.operand.kind, o.operand.at(w.block.batch, head, w.query(i), c));
        down_columns<false>(w, w.i0, w.i1, a, weighted);
        float* out = into.data + (w.j0 - into.col0) * o.count + c;
        for (int j = 0, stop = shown(w, into); j < stop; ++j) out[j * o.count] += weighted[j];
    }
}

// Pool columns into blocks of `cols` keys. The sum of each block's part of a tile is a sum of vectors first.
template <bool kMax>
INLINE void pool(const Weights& w, const float* x, long cols, float* out, long col0) {
    const long stop = w.block.request->dims.m - w.j0 < w.width ? w.block.request->dims.m - w.j0 : w.width;
    for (long j = 0; j < stop;) {
        const long block = (w.j0 + j) / cols;
        long end = (block + 1) * cols - w.j0;
        if (end > stop) end = stop;
        Floats many{};
        for (; j + kLanes <= end; j += kLanes) many = kMax ? larger(many, load(x + j)) : many + load(x + j);
        float total = kMax ? largest(many) : sum(many);
        for (; j < end; ++j) total = kMax ? (x[j] > total ? x[j] : total) : total + x[j];
        float& into = out[block - col0];
        into = kMax ? (total > into ? total : into) : into + total;
    }
}

template <bool kMax>
INLINE void blocks(const Weights& w, const Observation& o, const Window& into, const float* plain) {
    alignas(64) float columns[kTile];
    for (int i = w.i0; i < w.i1;) {
        const long block = w.query(i) / o.rows, more = (block + 1) * o.rows - w.query(i);
        const int end = more < w.i1 - i ? static_cast<int>(i + more) : w.i1;  // rows of one head follow one another
        const float* x = columns;
        if (!kMax && i == w.i0 && end == w.i1) x = plain;  // the same sum, already made
        else down_columns<kMax>(w, i, end, w.factor, columns);
        pool<kMax>(w, x, o.cols, into.data + (block - into.row0) * into.cols, into.col0);
        i = end;
    }
}

INLINE void chosen_rows(const Weights& w, const Observation& o) {
    const Dims& d = w.block.request->dims;
    const int64_t* chosen = static_cast<const int64_t*>(o.operand.data);
    const int stop = d.m - w.j0 < w.width ? d.m - w.j0 : w.width;
    for (long k = 0; k < o.count; ++k) {
        const int first = w.query(w.i0);
        const int64_t i = w.i0 + chosen[k] - first;  // rows of one head follow one another
        if (i < w.i0 || i >= w.i1) continue;
        const long head = static_cast<long>(w.block.batch) * d.h + w.block.row[w.i0].head;
        float* out = static_cast<float*>(o.out) + (head * o.count + k) * d.m + w.j0;
        for (int j = 0; j < stop; ++j) out[j] = w.factor[i] * w.row(static_cast<int>(i))[j];
    }
}

INLINE void entries(const Weights& w, const Observation& o) {
    const Request& r = *w.block.request;
    for (int i = w.i0; i < w.i1; ++i) {
        const Row row = w.block.row[i];
        const int64_t* keys = static_cast<const int64_t*>(o.operand.data);
        float* out = static_cast<float*>(o.out) + cell(r, w.block.batch, row) * o.count;
        const long at = o.operand.at(w.block.batch, heads_of(o, r.dims, row.head), row.query);
        for (long c = 0; c < o.count; ++c) {
            const int64_t j = keys[at + c * o.operand.stride[3]] - w.j0;
            if (j >= 0 && j < w.width) out[c] = w.factor[i] * w.row(i)[j];
        }
    }
}

INLINE void segment_mass(const Weights& w, const Observation& o, const Window& into) {
    const Request& r = *w.block.request;
    const int64_t* ids = static_cast<const int64_t*>(o.operand.data);
    const int stop = r.dims.m - w.j0 < w.width ? r.dims.m - w.j0 : w.width;
    int64_t id[kTile];
    const long at = o.operand.at(w.block.batch, heads_of(o, r.dims, w.block.row[w.i0].head), w.j0);
    for (int j = 0; j < stop; ++j) id[j] = ids[at + j * o.operand.stride[2]];
    for (int j = 0; j < stop;) {  // runs of one segment
        int end = j;
        while (end < stop && id[end] == id[j]) ++end;
        if (id[j] >= 0) {
            for (int i = w.i0; i < w.i1; ++i) {
                float total = 0;
                int k = j;
                Floats many{};
                for (; k + kLanes <= end; k += kLanes) many += load(w.row(i) + k);
                for (; k < end; ++k) total += w.row(i)[k];
                into.data[(w.query(i) - into.row0) * o.count + id[j]] += w.factor[i] * (sum(many) + total);
            }
        }
        j = end;
    }
}

INLINE void sweep_tile(const Weights& w, const Window* windows) {
    const Request& r = *w.block.request;
    bool summed = false;
    for (const Observation& o : r.observations)
        summed |= o.what == What::block_mass || (o.what == What::received && !o.operand);
    alignas(64) float plain[kTile];
    if (summed) down_columns<false>(w, w.i0, w.i1, w.factor, plain);
    for (const Observation& o : r.observations) {
        const Window& into = *windows++;
        switch (o.what) {
            case What::received:
                received(w, o, into, plain);
                break;
            case What::column_max:
                column_max(w, into);
                break;
            case What::column_moment:
                column_moment(w, o, into);
                break;
            case What::block_mass:
                blocks<false>(w, o, into, plain);
                break;
            case What::block_max:
                blocks<true>(w, o, into, plain);
                break;
            case What::rows:
                chosen_rows(w, o);
                break;
            case What::entries:
                entries(w, o);
                break;
            case What::segment_mass:
                segment_mass(w, o, into);
                break;
            default:
                break;
        }
    }
}

// What brings a tile's weights to their rows' final references, and shares out.
INLINE void factors(const Block& b, int number, float unit, float* factor) {
    alignas(64) float old[kRows] = {};
    std::memcpy(old, b.strip_reference + static_cast<long>(number) * b.strip_rows,
                sizeof(float) * static_cast<size_t>(b.rows));
    for (int i = 0; i < b.rows; i += kLanes) {
        const Floats turn = power_of_2((load(old + i) - load(b.reference + i)) * unit);
        store(factor + i, pick(load(old + i) == splat(-INFINITY), Floats{}, turn * load(b.share + i)));
    }
}

// Every settled reduction of the block's rows against keys j0:j1. The first tiles first: they were made last.
void sweep(const Block& b) {
    const long observations = static_cast<long>(b.request->observations.size());
    alignas(64) float factor[kRows];
    const float unit = remaining_scale(*b.request) * kLog2e;
    for (int j0 = b.j0 / kTile * kTile; j0 < b.j1; j0 += kTile) {
        const int width = static_cast<int>(up(b.j1 - j0 < kTile ? b.j1 - j0 : kTile, kPanel)), number = j0 / kTile;
        factors(b, number, unit, factor);
        for (int i = 0; i < b.rows;) {
            int end = i;
            while (end < b.rows && b.row[end].head == b.row[i].head) ++end;
            const Weights w{b, i, end, j0, width, b.strip + static_cast<long>(number) * b.strip_rows * kTile, factor};
            sweep_tile(w, b.windows + (b.row[i].head - b.first_head) * observations);
            i = end;
        }
    }
}

}  // namespace
}  // namespace sightline
