// The largest logits of a row, in order: score descending, key ascending, exactly.
#pragma once

#include "../kernels.hpp"
#include "transpose.hpp"

namespace sightline {
namespace {

constexpr int kMostTop = 64;

constexpr int kLongs = kLanes / 2;

// Lists stand side by side, kLongs rows in a vector: entry p of row i, where every list has k.
INLINE int listed(int i, int p, int k) { return (i / kLongs * k + p) * kLongs + i % kLongs; }

// A logit and its key as one number, the larger the better: logit first, then the lower key. Floats compare as their
// bits do as integers, once those of negative ones are turned around; -0 is 0.
INLINE int64_t ranked(float logit, int key) {
    const float x = logit + 0.0f;
    int32_t bits;
    std::memcpy(&bits, &x, 4);
    bits ^= bits >> 31 & INT32_MAX;
    return static_cast<int64_t>(static_cast<uint64_t>(bits) << 32 | static_cast<uint32_t>(~key));
}

INLINE float logit_of(int64_t ranked) {
    int32_t bits = static_cast<int32_t>(ranked >> 32);
    bits ^= bits >> 31 & INT32_MAX;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

INLINE int key_of(int64_t ranked) { return static_cast<int>(~static_cast<uint32_t>(ranked)); }

constexpr int64_t kNone = static_cast<int64_t>(uint64_t{0x807FFFFF} << 32);  // ranked(-INFINITY, -1)

constexpr int kBits = 16;                               // numbers that a word of bits is about
constexpr int kWords = kTile / kBits;                   // words of a row
constexpr int kSome = kPanel < kBits ? kPanel : kBits;  // numbers compared at once

// Which of kSome numbers are above `cut`.
INLINE uint16_t above(const float* x, float cut) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)load(x), (__m512)splat(cut), _CMP_GT_OQ);
#elif defined(__AVX2__)
    const int low = _mm256_movemask_ps((__m256)(load(x) > splat(cut)));
    return static_cast<uint16_t>(low | _mm256_movemask_ps((__m256)(load(x + kLanes) > splat(cut))) << kLanes);
#else
    int bits = 0;
    for (int i = 0; i < kSome; ++i) bits |= (x[i] > cut) << i;
    return static_cast<uint16_t>(bits);
#endif
}

// Which of a row's numbers j ... j + kPanel - 1 are above `cut`; their bits are 0 so far.
INLINE void set_above(const float* x, int j, float cut, uint16_t* bits) {
#pragma GCC unroll 2
    for (int at = j; at < j + kPanel; at += kSome) {
        const uint16_t some = above(x + at, cut);
        if (kSome == kBits) bits[at / kBits] = some;
        else bits[at / kBits] |= static_cast<uint16_t>(some << at % kBits);
    }
}

// Which of a row's words have any bit.
INLINE uint16_t any(const uint16_t* words) {
#if defined(__AVX512F__)
    const __m256i all = _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1 << kWords) - 1), words);
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

constexpr int kEarly = 3072 / kTile;  // tiles of which most rows have candidates: they are found along with the maxima
constexpr int kTogether = 16;  // rows whose candidates are found before any is inserted: fewer loops to leave early

// Put `rounds` vectors of ranked numbers, one for every row, into kMany entries of the rows' lists, and what falls off
// in their place. No branch on values.
template <int kMany>
INLINE void insert_into(int64_t* entries, int64_t* numbers, int rounds) {
    Longs kept[kMany];
#pragma GCC unroll 8
    for (int p = 0; p < kMany; ++p) kept[p] = load<Longs>(entries + p * kLongs);
    for (int round = 0; round < rounds; ++round) {
        Longs it = load<Longs>(numbers + round * kLongs);
#pragma GCC unroll 8
        for (int p = 0; p < kMany; ++p) {
            const Longs old = kept[p];
            kept[p] = old > it ? old : it;
            it = old > it ? it : old;
        }
        store(numbers + round * kLongs, it);
    }
#pragma GCC unroll 8
    for (int p = 0; p < kMany; ++p) store(entries + p * kLongs, kept[p]);
}

// The same for whole lists.
INLINE void insert_all(int64_t* lists, int k, int64_t* numbers, int rounds) {
    int p = 0;
    for (; p + 8 <= k; p += 8) insert_into<8>(lists + p * kLongs, numbers, rounds);
    for (; p < k; ++p) insert_into<1>(lists + p * kLongs, numbers, rounds);
}

// Fold another state's list of row i into a state's.
INLINE void merge_top(int64_t* top, const int64_t* more, int i, int k) {
    for (int from = 0; from < k; ++from) {
        int64_t it = more[listed(i, from, k)];
        for (int p = 0; p < k; ++p)
            if (top[listed(i, p, k)] < it) std::swap(top[listed(i, p, k)], it);
    }
}

}  // namespace
}  // namespace sightline
