// The largest logits of a row, in order: score descending, key ascending, exactly.
#pragma once

#include "../kernels.hpp"
#include "transpose.hpp"

namespace sightline {
namespace {

constexpr int kMostTop = 64;

// Lists are padded to whole vectors.
INLINE int padded_top(long k) { return static_cast<int>((k + kLanes - 1) / kLanes * kLanes); }

// [first, a_0, ..., a_(L-2)]
template <class V>
INLINE V pushed(V first, V a) {
#if defined(__AVX512F__)
    return (V)_mm512_alignr_epi32((__m512i)a, (__m512i)first, kLanes - 1);
#else
    V r;
    r[0] = first[kLanes - 1];
    for (int i = 1; i < kLanes; ++i) r[i] = a[i - 1];
    return r;
#endif
}

// Put (x, key) behind all of the list that are at least as large; what falls off the end is lost. No branch on values.
INLINE void insert(float* values, int* keys, int size, float x, int key) {
#if defined(__AVX512F__)
    // Those that stay are the first ones. A bit is clear where the new one goes, and the others spread over the rest.
    if (size == 8) {
        const __m256 old = _mm256_loadu_ps(values), it = _mm256_set1_ps(x);
        const __mmask8 rest = _knot_mask8(_kadd_mask8(_mm256_cmp_ps_mask(old, it, _CMP_GE_OQ), 1));
        const __m256i old_keys = load<__m256i>(keys);
        _mm256_storeu_ps(values, _mm256_mask_expand_ps(it, rest, old));
        return store(keys, _mm256_mask_expand_epi32(_mm256_set1_epi32(key), rest, old_keys));
    }
    if (size == kLanes) {
        const __m512 old = (__m512)load(values), it = (__m512)splat(x);
        const __mmask16 rest = _knot_mask16(_kadd_mask16(_mm512_cmp_ps_mask(old, it, _CMP_GE_OQ), 1));
        const __m512i old_keys = load<__m512i>(keys);
        store(values, _mm512_mask_expand_ps(it, rest, old));
        return store(keys, _mm512_mask_expand_epi32(_mm512_set1_epi32(key), rest, old_keys));
    }
#endif
    Floats before = splat(INFINITY);  // last of the vector to the left
    Ints key_before{};
    for (int at = 0; at < size; at += kLanes) {
        const Floats old = load(values + at), left = pushed(before, old);
        const Ints old_keys = load<Ints>(keys + at), left_keys = pushed(key_before, old_keys);
        const Ints keep = old >= splat(x), shift = left < splat(x);
        store(values + at, pick(keep, old, pick(shift, left, splat(x))));
        store(keys + at, pick(keep, old_keys, pick(shift, left_keys, splat(int32_t{key}))));
        before = old;
        key_before = old_keys;
    }
}

constexpr int kBits = 16;              // numbers that a word of bits is about
constexpr int kWords = kTile / kBits;  // words of a row

// Which of kBits numbers are above `cut`.
INLINE uint16_t above(const float* x, float cut) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)load(x), (__m512)splat(cut), _CMP_GT_OQ);
#elif defined(__AVX2__)
    const int low = _mm256_movemask_ps((__m256)(load(x) > splat(cut)));
    return static_cast<uint16_t>(low | _mm256_movemask_ps((__m256)(load(x + kLanes) > splat(cut))) << kLanes);
#else
    int bits = 0;
    for (int i = 0; i < kBits; ++i) bits |= (x[i] > cut) << i;
    return static_cast<uint16_t>(bits);
#endif
}

// Which of a row's words have any bit.
INLINE uint16_t any(const uint16_t* words) {
#if defined(__AVX512F__)
    const __m256i all = load<__m256i>(words);
    return _mm256_test_epi16_mask(all, all);
#else
    int bits = 0;
    for (int w = 0; w < kWords; ++w) bits |= (words[w] != 0) << w;
    return static_cast<uint16_t>(bits);
#endif
}

INLINE int count_bits(const uint16_t* words) {
    int count = 0;
    for (int w = 0; w < kWords; w += 4) count += __builtin_popcountll(load<uint64_t>(words + w));
    return count;
}

// Write `place` plus the number of each bit that is set; returns how many. Up to kBits may be written over.
INLINE int list_bits(uint32_t bits, int place, int* out) {
#if defined(__AVX512F__)
    // To a register first: straight to memory it is slow on some machines.
    const __m512i places = (__m512i)(counting() + place);
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), places));
    return __builtin_popcount(bits);
#else
    int count = 0;
    for (; bits; bits &= bits - 1) out[count++] = place + __builtin_ctz(bits);
    return count;
#endif
}

// The next float below a finite x.
INLINE float just_below(float x) {
    int32_t bits;
    std::memcpy(&bits, &x, 4);
    bits = x > 0 ? bits - 1 : x < 0 ? bits + 1 : INT32_MIN + 1;
    std::memcpy(&x, &bits, 4);
    return x;
}

// A number that at least k of the x are no smaller than: the least of k or more maxima of disjoint parts.
INLINE float at_least(const float* x, int n, int k) {
    if (n < 4 * kLanes || k > 4 * kLanes) return -INFINITY;
    Floats part[4];
    for (int i = 0; i < 4; ++i) part[i] = load(x + i * kLanes);
    for (int at = 4 * kLanes; at < n; at += kLanes) {
        const int i = at / kLanes % 4;
        part[i] = larger(part[i], load(x + at));
    }
    if (k > 2 * kLanes)
        return smallest(pick(pick(part[0] < part[1], part[0], part[1]) < pick(part[2] < part[3], part[2], part[3]),
                             pick(part[0] < part[1], part[0], part[1]), pick(part[2] < part[3], part[2], part[3])));
    part[0] = larger(part[0], part[2]);
    part[1] = larger(part[1], part[3]);
    if (k > kLanes) return smallest(pick(part[0] < part[1], part[0], part[1]));
    Floats all = larger(part[0], part[1]);
    int lanes = kLanes;
    for (; lanes / 2 >= k; lanes /= 2)
        for (int i = 0; i < lanes / 2; ++i) all[i] = all[i] > all[i + lanes / 2] ? all[i] : all[i + lanes / 2];
    float least = all[0];
    for (int i = 1; i < lanes; ++i) least = all[i] < least ? all[i] : least;
    return least;
}

// The k-th largest of each row's kLanes numbers, for kLanes rows: Batcher's merge sort, every row in its own lane.
__attribute__((noinline)) void sorted_at(const float* rows, int k, float* out) {
    Ints v[kLanes];
    for (int i = 0; i < kLanes; ++i) v[i] = load<Ints>(rows + i * kLanes);
    transpose(v);
    for (int part = 1; part < kLanes; part *= 2)
        for (int step = part; step; step /= 2)
            for (int from = step % part; from + step < kLanes; from += 2 * step)
                for (int i = from; i < from + step && i + step < kLanes; ++i) {
                    if (i / (2 * part) != (i + step) / (2 * part)) continue;
                    const Floats a = (Floats)v[i], b = (Floats)v[i + step];
                    v[i] = (Ints)larger(a, b);
                    v[i + step] = (Ints)pick(a > b, b, a);
                }
    store(out, v[k - 1]);
}

constexpr int kTogether = 16;  // rows whose candidates are found before any is inserted: fewer loops to leave early
constexpr int kStreams = 4;    // lists of candidates, of different rows: an insertion waits for the last one of its row
constexpr int kStream = kTogether / kStreams * kTile + kBits;

// Candidates for the lists of some rows of a tile; a place is kTile times the row, plus the key.
struct Candidates {
    int* places;  // [kStreams, kStream]
    int count[kStreams];
};

// Insert them all. size: of a list; kSize: how much of it is in use where that is known, else 0.
template <int kSize>
__attribute__((noinline)) void insert_all(const Candidates& found, const float* tile, int j0, float* values, int* keys,
                                          int size) {
    const auto put = [&](int stream, int c) __attribute__((always_inline)) {
        const unsigned place = static_cast<unsigned>(found.places[stream * kStream + c]);
        const unsigned list = place / kTile * static_cast<unsigned>(size);
        insert(values + list, keys + list, kSize ? kSize : size, tile[place], j0 + static_cast<int>(place % kTile));
    };
    int least = found.count[0];
    for (int s = 1; s < kStreams; ++s) least = found.count[s] < least ? found.count[s] : least;
    for (int c = 0; c < least; ++c)
        for (int s = 0; s < kStreams; ++s) put(s, c);
    for (int s = 0; s < kStreams; ++s)
        for (int c = least; c < found.count[s]; ++c) put(s, c);
}

// Fold another list into a list: keys may come in any order.
INLINE void merge_top(float* values, int* keys, const float* more, const int* more_keys, int k) {
    for (int i = 0; i < k && more[i] > -INFINITY; ++i) {
        int at = k;
        while (at > 0 && (values[at - 1] < more[i] || (values[at - 1] == more[i] && keys[at - 1] > more_keys[i]))) --at;
        for (int p = k - 1; p > at; --p) values[p] = values[p - 1], keys[p] = keys[p - 1];
        if (at < k) values[at] = more[i], keys[at] = more_keys[i];
    }
}

}  // namespace
}  // namespace sightline
