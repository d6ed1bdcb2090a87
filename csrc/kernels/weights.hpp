// A tile of a band as the backward needs it: its weights P, and D, their gradient, or dS where offsets are known.
#pragma once

#include "rows.hpp"

namespace sightline {
namespace {

// Products of a block's rows of words with keys j0 ... j0 + width - 1, into or onto c.
template <class Word>
INLINE void multiply_keys(const Block& b, const char* rows, long words, const char* keys, int j0, int width, float* c,
                          long c_row, const float* ones) {
    multiply(b.rows, reinterpret_cast<const Word*>(rows), words, reinterpret_cast<const Word*>(keys) + j0 * words,
             words, words, width, c, c_row, ones);
}

INLINE void products(bool paired, const Block& b, const char* rows, long words, const char* keys, int j0, int width,
                     float* c, long c_row, const float* ones = nullptr) {
    if (paired) multiply_keys<Pair>(b, rows, words, keys, j0, width, c, c_row, ones);
    else multiply_keys<float>(b, rows, words, keys, j0, width, c, c_row, ones);
}

// The slope of a softcap at products x.
INLINE void cap_slopes(const float* x, int rows, int width, float factor, float* slope) {
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < width; j += kLanes) {
            const Floats t = hyperbolic_tangent(load(x + i * kTile + j) * factor);
            store(slope + i * kStride + j, fma(-t, t, splat(1.0f)));
        }
}

// Weights of one row; dS times a factor in place of D.
INLINE void score_row(const float* s, int width, float scale, float lse, float* p, float* d, float offset,
                      float factor) {
    for (int j = 0; j < width; j += kLanes) {
        const Floats e = exponential(fma(load(s + j), splat(scale), splat(-lse)));
        store(p + j, e);
        store(d + j, (load(d + j) - offset) * (e * factor));
    }
}

// Weights of one row, and their part of the sum of P D.
INLINE void weigh_row(const float* s, int width, float scale, float lse, float* p, const float* d, float* sums) {
    Floats total[2] = {load(sums), Floats{}};
    for (int j = 0; j < width; j += kPanel)
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            const int at = j + half * kLanes;
            const Floats e = exponential(fma(load(s + at), splat(scale), splat(-lse)));
            store(p + at, e);
            total[half] = fma(e, load(d + at), total[half]);
        }
    store(sums, total[0] + total[1]);
}

// Rows i and, where it is there, i + 1 of a strip as pairs.
INLINE void pair_rows(const float* p, bool both, int width, Pair* out) {
    for (int j = 0; j < width; j += kLanes)
        store_row_pairs(out + j, load(p + j), both ? load(p + kStride + j) : Floats{});
}

// D of a block's moments.
INLINE void multiply_moments(const Band& x, int b, int j0, int width, float* d) {
    const long row = static_cast<long>(b) * kBandRows;
    for (int i = 0; i < x.moments.count; ++i) {
        const Moment& m = x.moments.list[i];
        products(m.across == Form::pairs, x.blocks[b], x.at.moment[i].rows + 4 * row * m.words(), m.words(),
                 x.values(i), j0, width, d, kStride, i ? x.at.ones : nullptr);
    }
    for (int i = 0; i < x.blocks[b].rows && !x.moments.count; ++i)
        std::memset(d + i * kStride, 0, sizeof(float) * static_cast<size_t>(width));
}

// Block b's part of a tile of both strips; `most` keys of them are used.
INLINE void weigh_block(const Band& x, int b, int j0, int width, int most, float* p, float* d, float* slope,
                        bool first) {
    const Request& r = *x.g.request;
    const Block& block = x.blocks[b];
    const BandScratch& at = x.at;
    const long row = static_cast<long>(b) * kBandRows;
    products(x.paired, block, at.queries + 4 * row * depth(r), depth(r), x.keys.across, j0, width, at.tile, kTile);
    if (slope) cap_slopes(at.tile, block.rows, width, x.left / r.scores.softcap, slope);
    const float left = score(block, 0, block.rows, j0, width, x.left, at.tile);
    multiply_moments(x, b, j0, width, d);
    const Seen seen{x.g, block, j0, width, at.tile, left, p, d};
    add_sensitivities(seen);
    for (int i = 0; i < block.rows; ++i) {
        const float *s = at.tile + i * kTile, lse = seen.lse(i);
        if (x.known)
            score_row(s, width, left, lse, p + i * kStride, d + i * kStride, at.offset[row + i],
                      x.plain ? r.scores.scale : 1);
        else weigh_row(s, width, left, lse, p + i * kStride, d + i * kStride, at.sums + (row + i) * kLanes);
        const size_t rest = static_cast<size_t>(most - width);
        if (rest) std::memset(p + i * kStride + width, 0, sizeof(float) * rest);
        if (rest) std::memset(d + i * kStride + width, 0, sizeof(float) * rest);
        if (first && x.moments.pairs_into && (i % 2 || i + 1 == block.rows))
            pair_rows(p + i / 2 * 2 * kStride, i % 2, most, at.p_down + (row + i) / 2 * kStride);
    }
    if (first) gather_operands(seen);
}

// Weights of some of a band's rows and dS in place of D, beside products: a row after the other, so many panels to a
// step that all are done after `steps` of them.
class Weigher {
  public:
    // Rows `first` and those after it, whose logits are at s [., kTile].
    Weigher(const Band& x, const Reach& reach, long first, const float* s, float* p, float* d, long steps)
        : x_(x),
          reach_(reach),
          s_(s - first * kTile),
          p_(p),
          d_(d),
          row_(first),
          end_(least(first + kPairRows, x.rows)),
          steps_(steps),
          panels_((end_ - first) * reach.most / kPanel),
          scale_(remaining_scale(*x.g.request)),
          factor_(x.plain ? x.g.request->scores.scale : 1) {
        start();
    }

    INLINE void operator()() {
        for (due_ += panels_; due_ >= steps_ && row_ < end_; due_ -= steps_) panel();
    }
    INLINE void finish() {
        while (row_ < end_) panel();
    }

  private:
    // The next row with keys here.
    INLINE void start() {
        for (j_ = 0; row_ < end_; ++row_) {
            const Block& block = x_.blocks[row_ / kBandRows];
            width_ = reach_.width[row_ / kBandRows];
            const float reference = block.reference[row_ % kBandRows];
            lse_ = reference == -INFINITY ? 0 : reference;
            if (width_) return;
            clear(0);
        }
    }
    // What blocks with more keys read of this row too.
    INLINE void clear(int from) {
        for (int j = from; j < reach_.most; j += kLanes) {
            store(p_ + row_ * kStride + j, Floats{});
            store(d_ + row_ * kStride + j, Floats{});
        }
    }
    INLINE void panel() {
        score_row(s_ + row_ * kTile + j_, kPanel, scale_, lse_, p_ + row_ * kStride + j_, d_ + row_ * kStride + j_,
                  x_.at.offset[row_], factor_);
        j_ += kPanel;
        if (j_ < width_) return;
        clear(width_);
        ++row_;
        start();
    }

    const Band& x_;
    const Reach& reach_;
    const float* s_;
    float *p_, *d_;
    long row_;
    const long end_, steps_, panels_;
    long due_ = 0;
    const float scale_, factor_;
    int j_, width_;
    float lse_;
};

// Two groups of the band's rows, from `row` on, times panels of columns, all as thirds of `words` words.
template <class Beside>
INLINE void multiply_row_thirds(const Band& x, const char* rows, long row, long words, const Pair* panels, int columns,
                                float* c, long c_row, Beside& beside) {
    multiply_thirds(kThirdGroups, reinterpret_cast<const Pair*>(rows) + row * words, words, x.at.padded * words, panels,
                    kThirds * words * kPanel, words * kPanel, words, columns, c, c_row, beside);
}

// Fill a tile of the strips by products of thirds: two groups' while the last two's weights are made.
INLINE void weigh_thirds(const Band& x, const Reach& reach, int j0, float* p, float* d, float* slope) {
    const Request& r = *x.g.request;
    const Moment& m = x.moments.list[0];
    const auto panels = [&](const char* packed, long words) {
        return reinterpret_cast<const Pair*>(packed) + kThirds * j0 * words;
    };
    float *tile = x.at.tile, *other = x.at.tile + kPairRows * kTile;
    const auto products = [&](long row, auto& beside) {
        int most = 0;
        for (long b = row / kBandRows; b < x.count && b * kBandRows < row + kPairRows; ++b)
            if (reach.width[b] > most) most = reach.width[b];
        multiply_row_thirds(x, x.at.queries, row, depth(r), panels(x.keys.across, depth(r)), most, tile, kTile, beside);
        multiply_row_thirds(x, x.at.moment[0].rows, row, m.depth(), panels(x.values(0), m.depth()), most,
                            d + row * kStride, kStride, beside);
        for (long i = row, stop; i < least(row + kPairRows, x.rows); i = stop) {
            const long b = i / kBandRows, first = i % kBandRows;
            stop = least(least(row + kPairRows, (b + 1) * kBandRows), x.rows);
            float* s = tile + (i - row) * kTile;
            const int rows = static_cast<int>(stop - i), width = reach.width[b];
            if (slope) cap_slopes(s, rows, width, x.left / r.scores.softcap, slope + i * kStride);
            score(x.blocks[b], static_cast<int>(first), static_cast<int>(first) + rows, j0, width, x.left, s);
        }
        std::swap(tile, other);
    };
    const long steps = third_steps(depth(r) + m.depth(), reach.most);
    Nothing nothing;
    products(0, nothing);
    long row = 0;
    for (; row + kPairRows < x.rows; row += kPairRows) {
        Weigher work(x, reach, row, other, p, d, steps);
        products(row + kPairRows, work);
        work.finish();
    }
    Weigher(x, reach, row, other, p, d, steps).finish();
}

// Fill a tile of the strips; the values of moments gather their gradients the first time.
INLINE void weigh_tile(const Band& x, int j0, float* p, float* d, float* slope, bool first) {
    const Reach reach(x.blocks, x.count, j0);
    if (x.third) weigh_thirds(x, reach, j0, p, d, slope);
    for (int b = reach.first; b <= reach.last && !x.third; ++b) {
        const long at = static_cast<long>(b) * kBandRows * kStride;
        weigh_block(x, b, j0, reach.width[b], reach.most, p + at, d + at, slope ? slope + at : nullptr, first);
    }
    if (!first) return;
    for (int i = 0; i < x.moments.count; ++i) {
        const Moment& m = x.moments.list[i];
        if (m.made)
            gather(x, reach, j0, m.down, p, x.at.p_down, x.at.moment[i].down, m.columns,
                   x.sums.moments[i] + x.copy(m) * x.g.request->dims.m * m.columns);
    }
}

// D of a tile once more.
INLINE void remake(const Band& x, int j0, float* d) {
    const Reach reach(x.blocks, x.count, j0);
    for (int b = reach.first; b <= reach.last; ++b)
        multiply_moments(x, b, j0, reach.width[b], d + static_cast<long>(b) * kBandRows * kStride);
}

}  // namespace
}  // namespace sightline
