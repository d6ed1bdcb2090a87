// Gradients: dS = P (D - offset), with D the gradient of the weights and the offset the row sum of P D. Where results
// do not tell it, a band's rows keep two strips, P and D, over all keys, so that no product is made twice. Where
// operands are bf16, products multiply pairs, for which P and dS are rounded; all sums and everything else are floats.
#pragma once

#include "band.hpp"
#include "sensitivity.hpp"

namespace sightline {
namespace {

INLINE long least(long a, long b) { return a < b ? a : b; }

// The keys of a tile that each block of a band needs: the first `width`, 0 for none.
struct Reach {
    int width[kBand], most = 0, first = kBand, last = -1;

    Reach(const Block* blocks, int count, int j0) {
        for (int b = 0; b < count; ++b) {
            const long end = blocks[b].j0 < j0 + kTile ? up(blocks[b].j1 - j0, kPanel) : 0;
            width[b] = static_cast<int>(end < 0 ? 0 : end < kTile ? end : kTile);
            if (!width[b]) continue;
            if (width[b] > most) most = width[b];
            if (first == kBand) first = b;
            last = b;
        }
    }

    // Keys from `from` on that the same blocks need: use(from, to, first block, last block).
    template <class Use>
    INLINE void pieces(Use use) const {
        for (int from = 0; from < most;) {
            int to = most, a = kBand, z = -1;
            for (int b = first; b <= last; ++b) {
                if (width[b] <= from) continue;
                if (a == kBand) a = b;
                z = b;
                if (width[b] < to) to = width[b];
            }
            use(from, to, a, z);
            from = to;
        }
    }
};

// One band and where everything about it lies.
struct Band {
    const Share& share;
    const Gradients& g;
    Block* blocks;
    int count, rows;
    Moments moments;
    PackedKeys keys;
    Sums sums;
    BandScratch at;
    float left;  // what is left to scale products with keys by
    bool paired, known;
    bool third;  // logits and D are products of thirds, of one moment
    bool plain;  // dS goes to queries and keys alone, times the scale alone

    Band(const Share& s, Block* given, int n)
        : share(s),
          g(*s.gradients),
          blocks(given),
          count(n),
          rows((n - 1) * kBandRows + given[n - 1].rows),
          moments(g),
          keys(g, moments, Carver(const_cast<char*>(s.packed))),
          sums(g, moments, s.alone, s.batch, s.key_head, Carver(s.sums)),
          at(g, moments, s.blocks, s.offsets, Carver(s.scratch)),
          left(1),
          paired(pairs(*g.request)),
          known(s.offsets == Offsets::known),
          third(thirds(*g.request)),
          plain(g.request->scores.softcap == 0 && !biased(g)) {}

    int copy(const Moment& x) const {  // the head of its values, of those packed
        return x.copies > 1 ? heads_of(*x.what, g.request->dims, blocks[0].row[0].head) % x.copies : 0;
    }
    const char* values(int i) const {
        const Moment& x = moments.list[i];
        return keys.moments[i] + 4 * copy(x) * up(g.request->dims.m, kPanel) * x.words();
    }
};

// c [rows, .] = or += a [rows, depth] times panels of columns `length` words long.
template <class Word>
INLINE void multiply_all(int rows, const Word* a, long a_row, const char* panels, long length, long depth, long columns,
                         float* c, const float* ones) {
    multiply(rows, a, a_row, reinterpret_cast<const Word*>(panels), length, depth, columns, c, columns, ones);
}

// A block's rows of a view one below the other, in panels of columns `length` words long. out: those of the block.
INLINE void pack_rows_down(const Block& b, const View& v, int width, bool paired, long length, char* out) {
    const auto at = [&](int i) { return v.at(b.batch, b.row[i].head, b.row[i].query); };
    alignas(64) float row[kWidest + kPanel] = {};
    alignas(64) uint16_t bits[2][kWidest + kPanel] = {};
    for (int i = 0; i < b.rows; i += paired ? 2 : 1) {
        if (!paired) {
            read_floats(v, at(i), v.stride[3], width, row);
            for (long c = 0; c < width; c += kPanel)
                std::memcpy(reinterpret_cast<float*>(out) + c * length + i * kPanel, row + c, sizeof(float) * kPanel);
            continue;
        }
        read_bits(v, at(i), v.stride[3], width, bits[0]);
        if (i + 1 < b.rows) read_bits(v, at(i + 1), v.stride[3], width, bits[1]);
        else std::memset(bits[1], 0, sizeof bits[1]);
        for (long c = 0; c < width; c += kPanel) {
            uint32_t* words = reinterpret_cast<uint32_t*>(out) + c * length + i / 2 * kPanel;
            for (int k = 0; k < kPanel; ++k) words[k] = bits[0][c + k] | uint32_t{bits[1][c + k]} << 16;
        }
    }
}

// Rows of a block as words, one after the other; thirds are `rows` rows apart. out: those of the block.
INLINE void pack_rows_across(const Block& b, const Moment& m, long rows, char* out) {
    const View& v = m.of;
    const int width = static_cast<int>(m.width);
    alignas(64) float floats[kWidest] = {};
    for (int i = 0; i < b.rows; ++i) {
        const long at = v.at(b.batch, b.row[i].head, b.row[i].query), words = m.depth();
        char* row = out + 4 * i * words;
        if (m.across == Form::floats) {
            read_floats(v, at, v.stride[3], width, reinterpret_cast<float*>(row));
        } else if (m.across == Form::thirds) {
            read_floats(v, at, v.stride[3], width, floats);
            split_row(floats, width, reinterpret_cast<Pair*>(row), rows * words);
        } else {
            std::memset(row + 4 * (words - 1), 0, 4);
            read_bits(v, at, v.stride[3], width, reinterpret_cast<uint16_t*>(row));
        }
    }
}

INLINE void pack_band(Band& x) {
    const Request& r = *x.g.request;
    for (int b = 0; b < x.count; ++b) {
        const Block& block = x.blocks[b];
        const long row = static_cast<long>(b) * kBandRows;
        x.left = pack_queries(block, x.at.padded * depth(r), x.at.queries + 4 * row * depth(r));
        if (x.g.k)
            pack_rows_down(block, r.q, r.dims.d, x.paired, x.at.rows / (x.paired ? 2 : 1),
                           x.at.queries_down + 4 * row / (x.paired ? 2 : 1) * kPanel);
        for (int i = 0; i < x.moments.count; ++i) {
            const Moment& m = x.moments.list[i];
            const int of_word = m.down ? 2 : 1;
            pack_rows_across(block, m, x.at.padded, x.at.moment[i].rows + 4 * row * m.depth());
            if (m.made)
                pack_rows_down(block, m.of, static_cast<int>(m.width), m.down, x.at.rows / of_word,
                               x.at.moment[i].down + 4 * row / of_word * kPanel);
        }
    }
}

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
    for (int i = 0; i < x.moments.count; ++i) {
        const Moment& m = x.moments.list[i];
        products(m.across == Form::pairs, block, at.moment[i].rows + 4 * row * m.words(), m.words(), x.values(i), j0,
                 width, d, kStride, i ? at.ones : nullptr);
    }
    for (int i = 0; i < block.rows && !x.moments.count; ++i)
        std::memset(d + i * kStride, 0, sizeof(float) * static_cast<size_t>(width));
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

// What the tile's keys gather from the band's rows: sums += a^T times rows that lie down in panels.
INLINE void gather(const Band& x, const Reach& reach, int j0, bool paired, const float* a, const Pair* pairs_of_a,
                   const char* down, long columns, float* sums) {
    const int there = x.g.request->dims.m - j0;
    reach.pieces([&](int from, int to, int first, int last) {
        const long row = static_cast<long>(first) * kBandRows;
        const long depth = last * kBandRows + x.blocks[last].rows - row;
        const int keys = (to < there ? to : there) - from;
        float* into = sums + (j0 + from) * columns;
        if (keys <= 0) return;
        if (paired)
            multiply_down(keys, pairs_of_a + row / 2 * kStride + from, kStride,
                          reinterpret_cast<const Pair*>(down) + row / 2 * kPanel, x.at.rows / 2, (depth + 1) / 2, into,
                          columns);
        else
            multiply_down(keys, a + row * kStride + from, kStride, reinterpret_cast<const float*>(down) + row * kPanel,
                          x.at.rows, depth, into, columns);
    });
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
          scale_(shaped(x.g.request->scores) ? 1 : x.left),
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

// The row sum of P D from linear results: g_i . (P f)_i. Added up in the order of a product with values, so that dS is
// 0 where one key has all the weight.
INLINE float product_with_results(const Band& x, const Row& row) {
    const Request& r = *x.g.request;
    float total = 0;
    for (size_t i = 0; i < r.observations.size(); ++i) {
        const View& of = x.g.of[i];
        if (!of) continue;
        const long count = r.observations[i].count, first = of.at(x.share.batch, row.head, row.query);
        const float* result = static_cast<const float*>(r.observations[i].out) + cell(r, x.share.batch, row) * count;
        Floats own{};  // all lanes the same: products and sums are rounded as vectors' are
        for (long c = 0; c < count; ++c)
            own = fma(splat(element(of.data, of.kind, first + c * of.stride[3])), splat(result[c]), own);
        total += own[0];
    }
    return total;
}

// The same of all rows as thirds, as D is: the diagonals of products with panels of results.
INLINE void multiply_results(const Band& x) {
    const Moment& m = x.moments.list[0];
    const Dims& d = x.g.request->dims;
    View results;
    results.data = m.what->out;
    results.stride[0] = d.h * d.n * m.width, results.stride[1] = d.n * m.width;
    results.stride[2] = m.width, results.stride[3] = 1;
    const Row from = x.blocks[0].row[0];
    Nothing nothing;
    for (int row = 0; row < x.rows; row += kPairRows) {
        const int some = static_cast<int>(least(kPairRows, x.rows - row)), query = from.query + row;
        pack_thirds_across(results, static_cast<int>(m.width), x.share.batch, from.head, query, query + some,
                           x.at.results);
        multiply_row_thirds(x, x.at.moment[0].rows, row, m.depth(), reinterpret_cast<const Pair*>(x.at.results), kPanel,
                            x.at.tile, kPanel, nothing);
        for (int i = 0; i < some; ++i) x.at.offset[row + i] = x.at.tile[i * kPanel + i];
    }
}

// The offsets of a band: from results, or from its sums of P D once they are complete.
INLINE void settle_offsets(const Band& x) {
    if (x.third) multiply_results(x);
    for (int b = 0; b < x.count; ++b)
        for (int i = 0; i < x.blocks[b].rows; ++i) {
            const Row row = x.blocks[b].row[i];
            const View& of = x.g.of_lse;
            const float moved = of ? element(of.data, of.kind, of.at(x.share.batch, row.head, row.query)) : 0;
            float& offset = x.at.offset[b * kBandRows + i];
            if (!x.known) offset = sum(load(x.at.sums + (b * kBandRows + i) * kLanes));
            else if (!x.third) offset = product_with_results(x, row);
            x.g.offset[cell(*x.g.request, x.share.batch, row)] = offset -= moved;
        }
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
            const long at = j / kTile * x.at.strip;
            use(j, x.at.p + at, x.at.d + at, r.scores.softcap > 0 ? x.at.slope + at : nullptr);
        }
    };
    if (!x.known) tiles([&](int j, float* p, float* d, float* slope) { weigh_tile(x, j, p, d, slope, true); });
    settle_offsets(x);
    bool fresh[kBand];
    for (bool& f : fresh) f = true;
    tiles([&](int j, float* p, float* d, float* slope) {
        if (share.offsets != Offsets::strips) weigh_tile(x, j, p, d, slope, x.known);
        if (x.g.q || x.g.k || biased(x.g)) spread_tile(x, j, p, d, slope, fresh);
    });
    if (x.g.q) write_queries(x, fresh);
}

const BackwardKernels backward_kernels = {backward_packed_bytes, backward_sums_bytes, backward_scratch_bytes,
                                          backward_pack,         backward_start,      backward_add,
                                          backward_join};

}  // namespace
}  // namespace sightline
