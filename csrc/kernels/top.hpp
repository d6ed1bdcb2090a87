// The largest logits of a row, in order: score descending, key ascending, exactly.
#pragma once

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

// Every x_j above `cut`, with its key, in order; returns how many. The buffers hold n + kLanes.
INLINE int collect(const float* x, int n, float cut, int j0, float* values, int* keys) {
    int count = 0;
#if defined(__AVX512F__)
    Ints j = counting() + j0;
    for (int at = 0; at < n; at += kLanes, j += kLanes) {
        const Floats v = load(x + at);
        const __mmask16 above = _mm512_cmp_ps_mask((__m512)v, (__m512)splat(cut), _CMP_GT_OQ);
        _mm512_storeu_ps(values + count, _mm512_maskz_compress_ps(above, (__m512)v));
        _mm512_storeu_si512(keys + count, _mm512_maskz_compress_epi32(above, (__m512i)j));
        count += __builtin_popcount(above);
    }
#else
    for (int at = 0; at < n; ++at) {
        values[count] = x[at];
        keys[count] = j0 + at;
        count += x[at] > cut;
    }
#endif
    return count;
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
    const float bound = at_least(x, n, k);
    // Equals of the list's last come later and lose; equals of the bound may be among the largest.
    const float cut = bound > last ? std::nextafter(bound, -INFINITY) : last;
    float found[kTile + kLanes];
    int found_keys[kTile + kLanes];
    const int count = collect(x, n, cut, j0, found, found_keys), size = padded_top(k);
    for (int i = 0; i < count; ++i) insert(values, keys, size, found[i], found_keys[i]);
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
