// The largest logits of a row, in order: score descending, key ascending, exactly.
#pragma once

#include "../kernels.hpp"
#include "vector.hpp"

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

constexpr int kWords = kTile / 64;

// Which of n <= kTile numbers are above `cut`, as bits; returns how many.
INLINE int above(const float* x, int n, float cut, uint64_t* bits) {
    uint64_t word[kWords] = {};
    for (int at = 0; at < n; at += kLanes) {
#if defined(__AVX512F__)
        const uint64_t some = _mm512_cmp_ps_mask((__m512)load(x + at), (__m512)splat(cut), _CMP_GT_OQ);
#elif defined(__AVX2__)
        const uint64_t some = static_cast<uint32_t>(_mm256_movemask_ps((__m256)(load(x + at) > splat(cut))));
#else
        uint64_t some = 0;
        for (int i = 0; i < kLanes; ++i) some |= uint64_t{x[at + i] > cut} << i;
#endif
        word[at / 64] |= some << at % 64;
    }
    int count = 0;
    for (int w = 0; w < kWords; ++w) count += __builtin_popcountll(bits[w] = word[w]);
    return count;
}

// The next float below a finite x.
INLINE float just_below(float x) {
    int32_t bits;
    std::memcpy(&bits, &x, 4);
    bits = x > 0 ? bits - 1 : x < 0 ? bits + 1 : INT32_MIN + 1;
    std::memcpy(&x, &bits, 4);
    return x;
}

// Where the first of n <= kTile numbers is that is as large as the largest.
INLINE int first_largest(const float* x, int n, float most) {
    uint64_t bits[kWords];
    if (!above(x, n, just_below(most), bits)) return 0;
    int w = 0;
    while (!bits[w]) ++w;
    return 64 * w + __builtin_ctzll(bits[w]);
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

// Fold n logits of a row, the largest of them `most`, into its list of the k largest.
INLINE void fold_top(const float* x, int n, int j0, float most, float* values, int* keys, int k) {
    const float last = values[k - 1];
    if (!(most > last)) return;
    uint64_t bits[kWords];
    // Equals of the list's last come later and lose.
    if (above(x, n, last, bits) > 2 * k) {
        // Too many, as in a row's first tile: equals of the bound may be among the largest, those below it cannot.
        const float bound = at_least(x, n, k);
        if (bound > last) above(x, n, just_below(bound), bits);
    }
    const int size = padded_top(k);
    if (size == kLanes) {  // the list stays in two registers
        Floats list = load(values);
        Ints list_keys = load<Ints>(keys);
        for (int w = 0; w < kWords; ++w) {
            for (uint64_t rest = bits[w]; rest; rest &= rest - 1) {
                const int j = 64 * w + __builtin_ctzll(rest);
                const Floats it = splat(x[j]), left = pushed(splat(INFINITY), list);
                const Ints keep = list >= it, shift = left < it;
                list_keys = pick(keep, list_keys, pick(shift, pushed(Ints{}, list_keys), splat(int32_t{j0 + j})));
                list = pick(keep, list, pick(shift, left, it));
            }
        }
        store(values, list);
        store(keys, list_keys);
        return;
    }
    for (int w = 0; w < kWords; ++w)
        for (uint64_t rest = bits[w]; rest; rest &= rest - 1) {
            const int j = 64 * w + __builtin_ctzll(rest);
            insert(values, keys, size, x[j], j0 + j);
        }
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
