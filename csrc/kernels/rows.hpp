// One band of rows: its operands, packed, and what keys gather from it.
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

}  // namespace
}  // namespace sightline
