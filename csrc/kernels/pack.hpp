// Operands in the layout the product reads: panels of kPanel columns, [depth, kPanel] words each, padded with zeros.
#pragma once

#include "../kernels.hpp"
#include "thirds.hpp"
#include "transpose.hpp"

namespace sightline {
namespace {

constexpr int kWidest = 256;  // d and each moment's width

// What products multiply: floats, pairs of bf16, or pairs of floats' thirds.
enum class Form { floats, pairs, thirds };

// Which operands are multiplied as pairs of bf16, and which as thirds.
INLINE bool pairs(const Request& r) { return kPairs && r.q.kind == Kind::bf16; }
INLINE bool pairs(const Request& r, const Observation& o) { return pairs(r) && o.operand.kind == Kind::bf16; }
INLINE bool thirds(const Request& r) { return kMatrices && r.thirds; }
INLINE Form form(const Request& r) { return pairs(r) ? Form::pairs : thirds(r) ? Form::thirds : Form::floats; }
INLINE Form form(const Request& r, const Observation& o) {
    return pairs(r, o) ? Form::pairs : kMatrices && o.thirds ? Form::thirds : Form::floats;
}

template <class T, class Convert>
INLINE void read(const void* data, long at, long step, int count, float* out, Convert convert) {
    const T* p = static_cast<const T*>(data) + at;
    if (step == 1)
        for (int i = 0; i < count; ++i) out[i] = convert(p[i]);
    else
        for (int i = 0; i < count; ++i) out[i] = convert(p[i * step]);
}

// `count` elements of a floating view from element `at`, `step` apart, as floats.
void read_floats(const View& v, long at, long step, int count, float* out) {
    switch (v.kind) {
        case Kind::bf16:
            return read<uint16_t>(v.data, at, step, count, out, [](uint16_t x) { return from_bf16(x); });
        case Kind::f16:
            return read<uint16_t>(v.data, at, step, count, out, [](uint16_t x) { return from_f16(x); });
        case Kind::f64:
            return read<double>(v.data, at, step, count, out, [](double x) { return float(x); });
        default:
            return read<float>(v.data, at, step, count, out, [](float x) { return x; });
    }
}

// The same as bf16 bits.
INLINE void read_bits(const View& v, long at, long step, int count, uint16_t* out) {
    const uint16_t* p = static_cast<const uint16_t*>(v.data) + at;
    if (step == 1) std::memcpy(out, p, sizeof(uint16_t) * static_cast<size_t>(count));
    else
        for (int i = 0; i < count; ++i) out[i] = p[i * step];
}

// Words of a row of queries or keys; of one third of it.
INLINE long depth(const Request& r) {
    switch (form(r)) {
        case Form::pairs:
            return (r.dims.d + 1) / 2;
        case Form::thirds:
            return up(r.dims.d, kPanel) / 2;
        default:
            return r.dims.d;
    }
}
// Words of all of it.
INLINE long row_words(const Request& r) { return depth(r) * (thirds(r) ? kThirds : 1); }

// A row of floats as words of thirds, `third` words from one to the next: neighbours kLanes apart share a word. x:
// padded to whole panels.
INLINE void split_row(const float* x, long count, Pair* out, long third) {
    for (long c = 0; c < count; c += kPanel) store_thirds(out + c / 2, third, load(x + c), load(x + c + kLanes));
}

// Queries of the block as rows of words, thirds `third` words apart, scaled where they are floats; what is left to
// scale logits by is returned.
float pack_queries(const Block& b, long third, void* out) {
    const Request& r = *b.request;
    const int d = r.dims.d;
    const float scale = r.scores.scale;
    for (int i = 0; i < b.rows; ++i) {
        const long at = r.q.at(b.batch, b.row[i].head, b.row[i].query);
        if (pairs(r)) {
            // Products of bf16 numbers are exact, so their scale waits; its sign cannot, for the largest comes first.
            uint16_t* row = static_cast<uint16_t*>(out) + i * 2 * depth(r);
            read_bits(r.q, at, r.q.stride[3], d, row);
            if (!(scale > 0))
                for (int c = 0; c < d; ++c) row[c] = scale == 0 ? 0 : row[c] ^ 0x8000;
            if (d % 2) row[d] = 0;
        } else if (thirds(r)) {
            alignas(64) float row[kWidest] = {};
            read_floats(r.q, at, r.q.stride[3], d, row);
            for (int c = 0; c < d; ++c) row[c] *= scale;
            split_row(row, d, static_cast<Pair*>(out) + i * depth(r), third);
        } else {
            float* row = static_cast<float*>(out) + i * static_cast<long>(d);
            read_floats(r.q, at, r.q.stride[3], d, row);
            for (int c = 0; c < d; ++c) row[c] *= scale;
        }
    }
    return !pairs(r) || scale == 0 ? 1 : std::fabs(scale);
}

// kPanel rows of `words` words as one panel [words, kPanel]: a transpose. What lies `ahead` bytes after each row is
// asked for: a transpose reads down columns, which the hardware does not foresee.
INLINE void pack_panel(const uint32_t* const (&row)[kPanel], long words, long ahead, uint32_t* panel) {
    long w = 0;
    for (; w + kLanes <= words; w += kLanes) {
        for (int c = 0; c < kPanel; c += kLanes) {
            Ints square[kLanes];
#pragma GCC unroll 16
            for (int i = 0; i < kLanes; ++i) {
                square[i] = load<Ints>(row[c + i] + w);
                __builtin_prefetch(reinterpret_cast<const char*>(row[c + i] + w) + ahead, 0, 1);
            }
            transpose(square);
#pragma GCC unroll 16
            for (int i = 0; i < kLanes; ++i) store(panel + (w + i) * kPanel + c, square[i]);
        }
    }
    for (; w < words; ++w)
        for (int c = 0; c < kPanel; ++c) std::memcpy(panel + w * kPanel + c, row[c] + w, sizeof(uint32_t));
}

// Rows j0 ... j1 - 1 of k [b, heads, ., d] as panels of kPanel of them, side by side; j0 is a multiple of kPanel.
void pack_across(const View& k, int d, bool paired, int batch, int head, int j0, int j1, char* out) {
    const long words = paired ? (d + 1) / 2 : d;
    const bool as_it_is = k.stride[3] == 1 && (paired ? d % 2 == 0 : k.kind == Kind::f32);
    const long ahead = as_it_is ? 2 * kPanel * k.stride[2] * (paired ? 2 : 4) : 0;
    alignas(64) uint32_t converted[kPanel][kWidest];
    alignas(64) static const uint32_t nothing[kWidest] = {};
    for (int j = j0; j < j1; j += kPanel) {
        const uint32_t* row[kPanel];
        for (int c = 0; c < kPanel; ++c) {
            const long at = k.at(batch, head, j + c);
            row[c] = nothing;
            if (j + c >= j1) continue;
            if (as_it_is) {
                row[c] = reinterpret_cast<const uint32_t*>(static_cast<const char*>(k.data) + at * (paired ? 2 : 4));
                continue;
            }
            row[c] = converted[c];
            if (!paired) {
                read_floats(k, at, k.stride[3], d, reinterpret_cast<float*>(converted[c]));
            } else {
                converted[c][words - 1] = 0;
                read_bits(k, at, k.stride[3], d, reinterpret_cast<uint16_t*>(converted[c]));
            }
        }
        pack_panel(row, words, ahead, reinterpret_cast<uint32_t*>(out) + (j - j0) * words);
    }
}

constexpr int kAhead = 24;  // rows

// Ask for one row of values.
INLINE void prefetch_row(const View& f, int batch, int head, int j, int width) {
    const int size = f.kind == Kind::f32 ? 4 : f.kind == Kind::f64 ? 8 : 2;
    const char* row = static_cast<const char*>(f.data) + f.at(batch, head, j) * size;
    for (long at = 0; at < static_cast<long>(width) * size; at += 64) __builtin_prefetch(row + at, 0, 2);
}

// The same as thirds: a panel's lie one after the other.
void pack_thirds_across(const View& k, int d, int batch, int head, int j0, int j1, char* out) {
    const long words = up(d, kPanel) / 2;
    alignas(64) Pair rows[kPanel][kThirds * kWidest / 2];
    alignas(64) float read[kWidest] = {};
    for (int j = j0; j < j1; j += kPanel) {
        for (int c = 0; c < kPanel; ++c) {
            prefetch_row(k, batch, head, j + c + 2 * kPanel, d);
            if (j + c < j1) {
                read_floats(k, k.at(batch, head, j + c), k.stride[3], d, read);
                split_row(read, d, rows[c], words);
            } else {
                std::memset(rows[c], 0, sizeof rows[c]);
            }
        }
        for (int t = 0; t < kThirds; ++t) {
            const uint32_t* row[kPanel];
            for (int c = 0; c < kPanel; ++c) row[c] = &rows[c][t * words].bits;
            pack_panel(row, words, 0, reinterpret_cast<uint32_t*>(out) + (kThirds * (j - j0) + t * kPanel) * words);
        }
    }
}

// Rows j0 ... j1 - 1 of f [b, heads, ., width] one below the other, in panels of kPanel columns `length` words long.
void pack_down(const View& f, int width, bool paired, int batch, int head, int j0, int j1, long length, char* out) {
    const int padded = static_cast<int>(up(width, kPanel));
    const long step = f.stride[3];
    if (paired) {
        alignas(64) uint16_t row[2][kWidest + kPanel] = {};
        for (int j = j0; j < up(j1, kPanel); j += 2) {
            prefetch_row(f, batch, head, j + kAhead, width);
            prefetch_row(f, batch, head, j + kAhead + 1, width);
            const uint16_t* from[2] = {row[0], row[1]};
            for (int odd = 0; odd < 2; ++odd) {
                const long at = f.at(batch, head, j + odd);
                if (j + odd >= j1) std::memset(row[odd], 0, sizeof row[odd]);
                else if (step == 1 && width == padded) from[odd] = static_cast<const uint16_t*>(f.data) + at;
                else read_bits(f, at, step, width, row[odd]);
            }
            for (int c = 0; c < padded; c += kPanel) {
                uint32_t* words = reinterpret_cast<uint32_t*>(out) + c * length + (j - j0) / 2 * kPanel;
                for (int i = 0; i < kPanel; ++i) words[i] = from[0][c + i] | uint32_t{from[1][c + i]} << 16;
            }
        }
        return;
    }
    alignas(64) float row[kWidest + kPanel] = {};
    for (int j = j0; j < up(j1, kPanel); ++j) {
        prefetch_row(f, batch, head, j + kAhead, width);
        const long at = f.at(batch, head, j);
        const float* from = row;
        if (j >= j1) std::memset(row, 0, sizeof row);
        else if (f.kind == Kind::f32 && step == 1 && width == padded) from = static_cast<const float*>(f.data) + at;
        else read_floats(f, at, step, width, row);
        for (int c = 0; c < padded; c += kPanel)
            std::memcpy(reinterpret_cast<float*>(out) + c * length + (j - j0) * kPanel, from + c,
                        sizeof(float) * kPanel);
    }
}

// The same as thirds, a whole panel's of columns one after the other; keys kLanes apart share a word.
void pack_thirds_down(const View& f, int width, int batch, int head, int j0, int j1, long length, char* out) {
    const int padded = static_cast<int>(up(width, kPanel));
    alignas(64) float rows[kPanel][kWidest] = {};
    for (int j = j0; j < j1; j += kPanel) {
        for (int i = 0; i < kPanel; ++i) {
            prefetch_row(f, batch, head, j + i + 2 * kPanel, width);
            if (j + i < j1) read_floats(f, f.at(batch, head, j + i), f.stride[3], width, rows[i]);
            else std::memset(rows[i], 0, sizeof rows[i]);
        }
        for (int c = 0; c < padded; c += kPanel)
            for (int i = 0; i < kLanes; ++i) {
                Pair* words = reinterpret_cast<Pair*>(out) + kThirds * c * length + ((j - j0) / 2 + i) * kPanel;
                for (int half = 0; half < kPanel; half += kLanes)
                    store_thirds(words + half, length * kPanel, load(rows[i] + c + half),
                                 load(rows[i + kLanes] + c + half));
            }
    }
}

// Words of a panel that holds the values of `keys` keys; of one third of it.
INLINE long value_words(const Request& r, const Observation& o, long keys) {
    return up(keys, kPanel) / (form(r, o) == Form::floats ? 1 : 2);
}

size_t key_bytes(const Request& r) { return sizeof(float) * static_cast<size_t>(up(r.dims.m, kPanel) * row_words(r)); }

size_t value_bytes(const Request& r, const Observation& o) {
    const long words = value_words(r, o, r.dims.m) * up(o.count, kPanel);
    return sizeof(float) * static_cast<size_t>(words * (form(r, o) == Form::thirds ? kThirds : 1));
}

// Keys j0 ... j1 - 1 of a whole head's packed keys.
void pack_some_keys(const Request& r, int batch, int head, int j0, int j1, char* out) {
    out += sizeof(float) * static_cast<size_t>(j0 * row_words(r));
    if (thirds(r)) pack_thirds_across(r.k, r.dims.d, batch, head, j0, j1, out);
    else pack_across(r.k, r.dims.d, pairs(r), batch, head, j0, j1, out);
}

void pack_some_values(const Request& r, const Observation& o, int batch, int head, int j0, int j1, char* out) {
    const long words = value_words(r, o, j0) * kPanel;  // j0 is a multiple of kTile
    if (form(r, o) == Form::thirds)
        return pack_thirds_down(o.operand, static_cast<int>(o.count), batch, head, j0, j1, value_words(r, o, r.dims.m),
                                out + sizeof(float) * static_cast<size_t>(words));
    pack_down(o.operand, static_cast<int>(o.count), pairs(r, o), batch, head, j0, j1, value_words(r, o, r.dims.m),
              out + sizeof(float) * static_cast<size_t>(words));
}

}  // namespace
}  // namespace sightline
