// All keys are in: add the sinks' share once, and write what the folds give.
#pragma once

#include "score.hpp"
#include "state.hpp"

namespace sightline {
namespace {

// A settled row. `turn` brings what is relative to the fold's reference to the final one.
struct Settled {
    double reference, turn, mass, total, d, log_total;
    bool live;
};

INLINE Settled settled(const Block& b, int i) {
    const Request& r = *b.request;
    const double old = double{b.state.reference[i]} * remaining_scale(r);
    Settled s{0, 0, 0, 1, 0, 0, old > -INFINITY};
    if (!s.live) return s;
    const double mass = sum(load(b.state.mass + i * kLanes));
    s.reference = old;
    double sink = -INFINITY;
    if (r.scores.sinks) {
        sink = element(r.scores.sinks.data, r.scores.sinks.kind, r.scores.sinks.at(0, b.row[i].head, 0));
        if (sink > old) s.reference = sink;
    }
    s.d = old - s.reference;
    s.turn = s.d < 0 ? std::exp(s.d) : 1;
    s.mass = mass * s.turn;
    s.total = s.mass + (r.scores.sinks ? std::exp(sink - s.reference) : 0);
    s.log_total = std::log(s.total);
    return s;
}

INLINE long cell(const Request& r, int batch, Row row) {
    return (static_cast<long>(batch) * r.dims.h + row.head) * r.dims.n + row.query;
}

// `count` floats times a factor, in the kind of the result.
INLINE void write_row(const float* x, float factor, long count, void* out, Kind kind, long at) {
    switch (kind) {
        case Kind::bf16:
            for (long c = 0; c < count; ++c) static_cast<uint16_t*>(out)[at + c] = to_bf16(x[c] * factor);
            break;
        case Kind::f16:
            for (long c = 0; c < count; ++c) static_cast<uint16_t*>(out)[at + c] = to_f16(x[c] * factor);
            break;
        default:
            for (long c = 0; c < count; ++c) static_cast<float*>(out)[at + c] = x[c] * factor;
    }
}

INLINE void finish_row(const Block& b, int i, const Observation& o, const Settled& s, const Folds& folds, long base) {
    const Request& r = *b.request;
    const long at = cell(r, b.batch, b.row[i]);
    switch (o.what) {
        case What::moment: {
            const float factor = s.live ? static_cast<float>(s.turn / s.total) : 0;
            const float* row = b.state.moments + base + i * up(o.count, kPanel);
            write_row(row, factor, o.count, o.out, o.out_kind, at * o.count);
            break;
        }
        case What::entropy: {
            const double slope = M_LN2 * sum(load(b.state.slope + i * kLanes));
            const double moved = s.turn > 0 ? s.turn * slope + s.d * s.mass : 0;
            put_element(o.out, o.out_kind, at,
                        s.live ? static_cast<float>((s.log_total * s.mass - moved) / s.total) : 0);
            break;
        }
        case What::peak: {
            const int first = listed(i, 0, folds.top), key = b.state.top_keys[first];
            const double x = double{b.state.top[first]} * remaining_scale(r);
            put_element(o.out, o.out_kind, at, key >= 0 ? static_cast<float>(std::exp(x - s.reference) / s.total) : 0);
            static_cast<int64_t*>(o.out_keys)[at] = key;
            break;
        }
        case What::top: {
            int64_t* keys = static_cast<int64_t*>(o.out) + at * o.count;
            for (int k = 0; k < o.count; ++k) keys[k] = b.state.top_keys[listed(i, k, folds.top)];
            break;
        }
        default:
            break;
    }
}

void finish(Block& b) {
    const Request& r = *b.request;
    const Folds folds(r);
    for (int i = 0; i < b.rows; ++i) {
        const Settled s = settled(b, i);
        const double lse = s.live ? s.reference + s.log_total : -INFINITY;
        r.lse[cell(r, b.batch, b.row[i])] = static_cast<float>(lse);
        b.reference[i] = b.state.reference[i];
        b.share[i] = s.live ? static_cast<float>(s.turn / s.total) : 0;
        long base = 0;
        for (const Observation& o : r.observations) {
            finish_row(b, i, o, s, folds, base);
            if (o.what == What::moment) base += kRows * up(o.count, kPanel);
        }
    }
}

}  // namespace
}  // namespace sightline
