// A few rows against keys and values as they lie in memory: with so few, packing would cost more than multiplying.
// Keys are multiplied along their width, and what is left of every sum in a vector's lanes is added up at the end.
#pragma once

#include <type_traits>

#include "pack.hpp"
#include "source.hpp"

namespace sightline {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kSums = 16;        // vectors of running sums that registers hold beside operands
constexpr int kDirectRows = 16;  // more rows repay packing
#else
constexpr int kSums = 8;
constexpr int kDirectRows = 8;
#endif
// How far ahead rows are asked for, into the second cache: the first waits for too few lines at a time.
constexpr long kAheadBytes = 16384;

// Whether rows are read as they lie: by sizes alone, since neither what is observed nor strides may change a bit.
INLINE bool direct(const Block& b) { return b.request->dims.n * b.request->dims.group() <= kDirectRows; }

// use(the source that reads elements of a kind).
template <class Use>
INLINE void with_source(Kind kind, bool paired, Use use) {
#if defined(__AVX512BF16__)
    if (paired) return use(Paired{});
#endif
    (void)paired;
    if (kind == Kind::bf16) return use(Brain{});
    if (kind == Kind::f16) return use(Half{});
    use(Single{});
}

// Rows i ... of `rows` by fours, then a pair, then one: use(i, how many as a constant).
template <class Use>
INLINE void by_fours(int rows, Use use) {
    int i = 0;
    for (; i + 4 <= rows; i += 4) use(i, std::integral_constant<int, 4>{});
    if (rows - i >= 2) use(i, std::integral_constant<int, 2>{}), i += 2;
    if (rows > i) use(i, std::integral_constant<int, 1>{});
}

// Rows of one head, so many bytes apart.
struct Lying {
    const char* data;
    long step, bytes;  // from row to row; of one row
    long count;

    // Rows j0 ... of a head. Where elements lie apart, the first `most` are brought together in `room`.
    template <class Source>
    static INLINE Lying of(const View& v, int batch, int head, long width, long j0, long count, long most, char* room) {
        constexpr size_t kBytes = Source::kBytes;
        const char* data = static_cast<const char*>(v.data) + v.at(batch, head, j0) * Source::kBytes;
        if (v.stride[3] == 1 || width == 1) return {data, v.stride[2] * Source::kBytes, width * Source::kBytes, count};
        if (count > most) count = most;
        for (long j = 0; j < count; ++j)
            for (long c = 0; c < width; ++c)
                std::memcpy(room + (j * width + c) * Source::kBytes, data + v.at(0, 0, j, c) * Source::kBytes, kBytes);
        return {room, width * Source::kBytes, width * Source::kBytes, count};
    }
    INLINE const char* at(long j) const { return data + (j < count ? j : count - 1) * step; }
    INLINE long ahead() const { return step > 0 ? (kAheadBytes / step + 1) * step : 0; }  // bytes, of whole rows
};

// Ask for what a vector of a row will be read from later.
template <long kSize>
INLINE void ask(const char* p, long at) {
#pragma GCC unroll 8
    for (long line = 0; line < kSize; line += 64)
        if (kSize >= 64 || at % 64 == 0) __builtin_prefetch(p + at + line, 0, 2);
}

// Queries as rows of words padded with zeros to whole vectors.
void pad_queries(const Block& b, const void* queries, uint32_t* out) {
    const long words = depth(*b.request), padded = up(words, kLanes);
    for (int i = 0; i < b.rows; ++i) {
        std::memset(out + i * padded, 0, sizeof(uint32_t) * static_cast<size_t>(padded));
        std::memcpy(out + i * padded, static_cast<const uint32_t*>(queries) + i * words,
                    sizeof(uint32_t) * static_cast<size_t>(words));
    }
}

// R rows of queries, `at` bytes into a key's row, times a vector of each key.
template <class Source, int R, bool kWhole>
INLINE void add_products(const char* const (&row)[kSums / R], long at, long bytes, long ahead, const uint32_t* queries,
                         long words, Floats (&acc)[kSums]) {
    constexpr int K = kSums / R;
    constexpr long kVector = Source::kStep * Source::kBytes;
    typename Source::Vector q[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) q[r] = load<typename Source::Vector>(queries + r * words + at / kVector * kLanes);
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) {
        ask<kVector>(row[k] + ahead, at);
        const auto key = Source::template row<kWhole>(row[k] + at, bytes - at);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) acc[r * K + k] = multiplied(acc[r * K + k], q[r], key);
    }
}

// R rows of queries [., words] times keys j ... j + kSums / R - 1, into tile [R, kTile].
template <class Source, int R>
INLINE void score_some(const Lying& keys, long j, long ahead, const uint32_t* queries, long words, float* tile) {
    constexpr int K = kSums / R;
    constexpr long kVector = Source::kStep * Source::kBytes;
    Floats acc[kSums];
    const char* row[K];
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) row[k] = keys.at(j + k);
#pragma GCC unroll 16
    for (int s = 0; s < kSums; ++s) acc[s] = Floats{};
    long at = 0;
    for (; at + kVector <= keys.bytes; at += kVector)
        add_products<Source, R, true>(row, at, keys.bytes, ahead, queries, words, acc);
    if (at < keys.bytes) add_products<Source, R, false>(row, at, keys.bytes, ahead, queries, words, acc);
    alignas(64) float out[kSums];
#pragma GCC unroll 4
    for (int s = 0; s < kSums; s += kLanes) {
        add_lanes(acc + s);
        store(out + s, acc[s]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) std::memcpy(tile + r * kTile, out + r * K, sizeof(float) * K);
}

template <class Source, int R>
__attribute__((noinline)) void score_rows(const Lying& keys, int width, const uint32_t* queries, long words,
                                          float* tile) {
    const long ahead = keys.ahead();
    for (int j = 0; j < width; j += kSums / R) score_some<Source, R>(keys, j, ahead, queries, words, tile + j);
}

// The products of all rows with keys j0 ... j0 + width - 1; past the last key any number may stand.
template <class Source>
void score_direct(const Block& b, const uint32_t* queries, long j0, int width, float* tile, char* room) {
    const Request& r = *b.request;
    const long words = up(depth(r), kLanes);
    const Lying keys = Lying::of<Source>(r.k, b.batch, b.key_head, r.dims.d, j0, r.dims.m - j0, width, room);
    by_fours(b.rows, [&](int i, auto some) {
        score_rows<Source, some>(keys, width, queries + i * words, words, tile + i * kTile);
    });
}

// R weights, `row` words apart, times C vectors of columns of a value, or of a pair of them.
template <class Source, bool kWhole, int R, int C>
INLINE void add_values(const char* const (&at)[Source::kKeys], long bytes, long ahead, const uint32_t* weights,
                       long row, Floats (&acc)[R][C]) {
    typename Source::Vector v[C];
#pragma GCC unroll 2
    for (int k = 0; k < Source::kKeys; ++k) ask<C * kLanes * Source::kBytes>(at[k] + ahead, 0);
    Source::template columns<kWhole>(at, bytes, v);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
        const auto w = (typename Source::Vector)splat(static_cast<int32_t>(weights[r * row]));
#pragma GCC unroll 16
        for (int c = 0; c < C; ++c) acc[r][c] = multiplied(acc[r][c], w, v[c]);
    }
}

// R rows of weights [., row] times C vectors of columns of `count` values from `from` on: into = shift_r into + ...
template <class Source, bool kWhole, int R, int C>
__attribute__((noinline)) void gather(const Lying& values, long from, int count, long column, const uint32_t* weights,
                                      long row, float* into, long columns, const float* shift) {
    static const char nothing[4 * kWidest] = {};
    constexpr int kKeys = Source::kKeys;
    Floats acc[R][C];
#pragma GCC unroll 16
    for (int i = 0; i < R * C; ++i) acc[i / C][i % C] = Floats{};
    const long skip = column * Source::kBytes, bytes = values.bytes - skip, step = values.step, ahead = values.ahead();
    const char* at[kKeys];
#pragma GCC unroll 2
    for (int k = 0; k < kKeys; ++k) at[k] = values.data + (from + k) * step + skip;
    for (int j = kKeys; j <= count; j += kKeys, ++weights) {
        add_values<Source, kWhole>(at, bytes, ahead, weights, row, acc);
#pragma GCC unroll 2
        for (int k = 0; k < kKeys; ++k) at[k] += kKeys * step;
    }
    if (count % kKeys) {
        at[kKeys - 1] = nothing;
        add_values<Source, kWhole>(at, bytes, 0, weights, row, acc);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
        for (int c = 0; c < C; ++c) {
            float* out = into + r * columns + c * kLanes;
            store(out, fma(splat(shift[r]), load(out), acc[r][c]));
        }
}

// All columns of R rows.
template <class Source, int R>
INLINE void gather_rows(const Lying& values, long from, int count, const uint32_t* weights, long row, float* into,
                        long columns, const float* shift) {
    constexpr int C = kSums / R < 8 ? kSums / R : 8;
    const long width = values.bytes / Source::kBytes;
    long c = 0;
    for (; c + C * kLanes <= width; c += C * kLanes)
        gather<Source, true, R, C>(values, from, count, c, weights, row, into + c, columns, shift);
    for (; c < width; c += kPanel)
        gather<Source, false, R, 2>(values, from, count, c, weights, row, into + c, columns, shift);
}

// into [rows, columns] = shift_r into + weights times values j0 + from ... j0 + to - 1. weights: rows of words, floats
// or pairs, `row` apart.
template <class Source>
void gather_direct(const Block& b, const Observation& o, int head, long j0, int from, int to, const uint32_t* weights,
                   long row, float* into, long columns, const float* shift, char* room) {
    const long there = b.request->dims.m - j0;
    const Lying values = Lying::of<Source>(o.operand, b.batch, head, o.count, j0, there, to, room);
    from -= from % Source::kKeys;
    by_fours(b.rows, [&](int i, auto some) {
        gather_rows<Source, some>(values, from, to - from, weights + i * row + from / Source::kKeys, row,
                                  into + i * columns, columns, shift + i);
    });
}

}  // namespace
}  // namespace sightline
