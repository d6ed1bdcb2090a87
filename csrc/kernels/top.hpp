// The largest logits of a row, in order: score descending, key ascending, exactly.
#pragma once

#include <type_traits>

#include "../kernels.hpp"
#include "transpose.hpp"

namespace sightline {
namespace {

constexpr int kMostTop = 64;

// Lists stand side by side, kLanes rows in a vector: entry p of row i, where every list has k.
INLINE int listed(int i, int p, int k) { return (i / kLanes * k + p) * kLanes + i % kLanes; }

constexpr float kLeast = -3.40282347e38f;  // the least finite number: what is masked is less

// Which lanes: what comparing gives. before: where a, of a_key, precedes b in a list.
#if defined(__AVX512F__)
typedef __mmask16 Where;
INLINE Where before(Floats a, Ints a_key, Floats b, Ints b_key) {
    const Where more = _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
    const Where same = _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ);
    return static_cast<Where>(more | _mm512_mask_cmplt_epi32_mask(same, (__m512i)a_key, (__m512i)b_key));
}
INLINE Where either(Where a, Where b) { return static_cast<Where>(a | b); }
INLINE Floats pick(Where where, Floats a, Floats b) {
    return (Floats)_mm512_mask_blend_ps(where, (__m512)b, (__m512)a);
}
INLINE Ints pick(Where where, Ints a, Ints b) { return (Ints)_mm512_mask_blend_epi32(where, (__m512i)b, (__m512i)a); }
#else
typedef Ints Where;
INLINE Where before(Floats a, Ints a_key, Floats b, Ints b_key) { return (a > b) | ((a == b) & (a_key < b_key)); }
INLINE Where either(Where a, Where b) { return a | b; }
#endif

constexpr int kBits = 16;                               // numbers that a word of bits is about
constexpr int kWords = kTile / kBits;                   // words of a row
constexpr int kSome = kPanel < kBits ? kPanel : kBits;  // numbers compared at once

// Which of kSome numbers reach `cut`.
INLINE uint16_t reaching(const float* x, float cut) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)load(x), (__m512)splat(cut), _CMP_GE_OQ);
#elif defined(__AVX2__)
    const int low = _mm256_movemask_ps((__m256)(load(x) >= splat(cut)));
    return static_cast<uint16_t>(low | _mm256_movemask_ps((__m256)(load(x + kLanes) >= splat(cut))) << kLanes);
#else
    int bits = 0;
    for (int i = 0; i < kSome; ++i) bits |= (x[i] >= cut) << i;
    return static_cast<uint16_t>(bits);
#endif
}

// Which of a row's numbers j ... j + kPanel - 1 reach `cut`; their bits are 0 so far.
INLINE void set_reaching(const float* x, int j, float cut, uint16_t* bits) {
#pragma GCC unroll 2
    for (int at = j; at < j + kPanel; at += kSome) {
        const uint16_t some = reaching(x + at, cut);
        if (kSome == kBits) bits[at / kBits] = some;
        else bits[at / kBits] |= static_cast<uint16_t>(some << at % kBits);
    }
}

// Which of kMap words have any bit.
constexpr int kMap = 32;
INLINE uint32_t any(const uint16_t* words) {
#if defined(__AVX512F__)
    const __m512i all = _mm512_loadu_si512(words);
    return _mm512_test_epi16_mask(all, all);
#else
    uint32_t bits = 0;
    for (int w = 0; w < kMap; ++w) bits |= uint32_t{words[w] != 0} << w;
    return bits;
#endif
}

INLINE int count_bits(const uint16_t* words) {
    int count = 0;
    for (int w = 0; w < kWords; w += 4) count += __builtin_popcountll(load<uint64_t>(words + w));
    return count;
}

// The next floats above.
INLINE Floats just_above(Floats x) {
    const Words bits = (Words)x;
    return (Floats)pick(x > Floats{}, (Ints)(bits + 1), pick(x < Floats{}, (Ints)(bits - 1), splat(int32_t{1})));
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
    if (k > 2 * kLanes) return smallest(smaller(smaller(part[0], part[1]), smaller(part[2], part[3])));
    part[0] = larger(part[0], part[2]);
    part[1] = larger(part[1], part[3]);
    if (k > kLanes) return smallest(smaller(part[0], part[1]));
    Floats all = larger(part[0], part[1]);
    int lanes = kLanes;
    for (; lanes / 2 >= k; lanes /= 2)
        for (int i = 0; i < lanes / 2; ++i) all[i] = all[i] > all[i + lanes / 2] ? all[i] : all[i + lanes / 2];
    float least = all[0];
    for (int i = 1; i < lanes; ++i) least = all[i] < least ? all[i] : least;
    return least;
}

// Batcher's merge sort of kLanes numbers: which two places are compared, one pair after the other.
struct Network {
    int low[kLanes * kLanes / 2] = {}, high[kLanes * kLanes / 2] = {}, size = 0;

    constexpr Network() {
        for (int part = 1; part < kLanes; part *= 2)
            for (int step = part; step; step /= 2)
                for (int from = step % part; from + step < kLanes; from += 2 * step)
                    for (int i = from; i < from + step && i + step < kLanes; ++i)
                        if (i / (2 * part) == (i + step) / (2 * part)) low[size] = i, high[size++] = i + step;
    }
};

// Largest first, every lane by itself.
template <int... I>
INLINE void sort_lanes(Ints (&v)[kLanes], std::integer_sequence<int, I...>) {
    constexpr Network kNetwork;
    const auto compare = [](Ints& a, Ints& b) __attribute__((always_inline)) {
        const Floats high = larger((Floats)a, (Floats)b), low = smaller((Floats)a, (Floats)b);
        a = (Ints)high, b = (Ints)low;
    };
    (compare(v[kNetwork.low[I]], v[kNetwork.high[I]]), ...);
}

// The k-th largest of each row's kLanes numbers, for kLanes rows.
__attribute__((noinline)) Floats sorted_at(const float* rows, int k) {
    Ints v[kLanes];
    for (int i = 0; i < kLanes; ++i) v[i] = load<Ints>(rows + i * kLanes);
    transpose(v);
    sort_lanes(v, std::make_integer_sequence<int, Network().size>{});
    return (Floats)v[k - 1];
}

constexpr int kEarly = 3072 / kTile;  // tiles of which most rows have candidates: asking which costs more
constexpr int kBounded = 4;           // tiles after which lists cut as well as another bound
constexpr int kTogether = 16;  // rows whose candidates are found before any is taken in: fewer loops to leave early
constexpr int kWaiting = 24;   // candidates of one row that wait before its list takes them in
constexpr int kRoom = kWaiting + kTile + kBits;

// Candidates that wait, [kRows, kRoom].
struct Waiting {
    float* logits;
    int *keys, *counts;  // counts [kRows]

    // Those of kBits logits of row i, of keys from `key` on, whose bits are set.
    INLINE void add(int i, uint16_t bits, const float* x, int key) const {
        int& count = counts[i];
        float* to = logits + i * kRoom + count;
        int* to_keys = keys + i * kRoom + count;
#if defined(__AVX512F__)
        // To a register first: straight to memory it is slow on some machines.
        const Ints all = counting() + key;
        store(to, (Floats)_mm512_maskz_compress_ps(bits, (__m512)load(x)));
        store(to_keys, (Ints)_mm512_maskz_compress_epi32(bits, (__m512i)all));
        count += __builtin_popcount(bits);
#else
        for (uint32_t some = bits; some; some &= some - 1, ++count) {
            const int bit = __builtin_ctz(some);
            *to++ = x[bit];
            *to_keys++ = key + bit;
        }
#endif
    }
};

// Entries of kLanes rows' lists.
template <int kMany>
struct Entries {
    Floats logit[kMany];
    Ints key[kMany];

    INLINE Entries(const float* logits, const int* keys) {
#pragma GCC unroll 8
        for (int p = 0; p < kMany; ++p) logit[p] = load(logits + p * kLanes), key[p] = load<Ints>(keys + p * kLanes);
    }
    INLINE void put(float* logits, int* keys) const {
#pragma GCC unroll 8
        for (int p = 0; p < kMany; ++p) store(logits + p * kLanes, logit[p]), store(keys + p * kLanes, key[p]);
    }

    // One candidate of every row; what falls off takes its place. fell: it did from entries before these, and comes
    // before all of them.
    INLINE void insert(Floats& it, Ints& its_key, Where& fell) {
        Floats last = it;
        Ints last_key = its_key;
        Where after = fell;
#pragma GCC unroll 8
        for (int p = 0; p < kMany; ++p) {
            const Floats old = logit[p];
            const Ints old_key = key[p];
            const Where here = either(fell, before(it, its_key, old, old_key));
            logit[p] = pick(after, last, pick(here, it, old));
            key[p] = pick(after, last_key, pick(here, its_key, old_key));
            last = old, last_key = old_key, after = here;
        }
        it = pick(after, last, it), its_key = pick(after, last_key, its_key), fell = after;
    }
};

// Up to kLanes candidates of each of kLanes rows: the c-th of every row in a vector, not a number where a row has
// fewer.
struct Candidates {
    Ints logit[kLanes], key[kLanes];

    INLINE Candidates(const Waiting& waiting, int i, int from) {
        const Ints counts = load<Ints>(waiting.counts + i);
        for (int lane = 0; lane < kLanes; ++lane) {
            logit[lane] = load<Ints>(waiting.logits + (i + lane) * kRoom + from);
            key[lane] = load<Ints>(waiting.keys + (i + lane) * kRoom + from);
        }
        transpose(logit);
        transpose(key);
        for (int c = 0; c < kLanes; ++c) logit[c] = (Ints)pick(counts > splat(from + c), (Floats)logit[c], splat(NAN));
    }
};

// Have lists of length k take in some candidates.
template <int kMany>
INLINE void take(float* logits, int* keys, int k, const Candidates& some, int count) {
    if constexpr (kMany > 0) {
        if (k < kMany) return take<kMany - 1>(logits, keys, k, some, count);
        Entries<kMany> list(logits, keys);
        for (int c = 0; c < count; ++c) {
            Floats it = (Floats)some.logit[c];
            Ints key = some.key[c];
            Where fell{};
            list.insert(it, key, fell);
        }
        list.put(logits, keys);
    }
}

// Longer lists than registers hold.
INLINE void take_long(float* logits, int* keys, int k, const Candidates& some, int count) {
    for (int c = 0; c < count; ++c) {
        Floats it = (Floats)some.logit[c];
        Ints key = some.key[c];
        Where fell{};
        const auto part = [&](int p, auto many) __attribute__((always_inline)) {
            Entries<decltype(many)::value> list(logits + p * kLanes, keys + p * kLanes);
            list.insert(it, key, fell);
            list.put(logits + p * kLanes, keys + p * kLanes);
        };
        int p = 0;
        for (; p + 8 <= k; p += 8) part(p, std::integral_constant<int, 8>{});
        for (; p < k; ++p) part(p, std::integral_constant<int, 1>{});
    }
}

// Have the lists of kLanes rows, i ..., take in what waits for them.
__attribute__((noinline)) void take_in(float* logits, int* keys, int k, const Waiting& waiting, int i) {
    int most = 0;
    for (int lane = 0; lane < kLanes; ++lane) most = waiting.counts[i + lane] > most ? waiting.counts[i + lane] : most;
    logits += listed(i, 0, k), keys += listed(i, 0, k);
    for (int from = 0; from < most; from += kLanes) {
        const Candidates some(waiting, i, from);
        const int count = most - from < kLanes ? most - from : kLanes;
        if (k <= 8) take<8>(logits, keys, k, some, count);
        else take_long(logits, keys, k, some, count);
    }
    store(waiting.counts + i, Ints{});
}

// Fold another state's list of row i, of later keys, into a state's.
INLINE void merge_top(float* logits, int* keys, const float* more, const int* more_keys, int i, int k) {
    for (int from = 0; from < k; ++from) {
        float it = more[listed(i, from, k)];
        int key = more_keys[listed(i, from, k)];
        bool fell = false;
        for (int p = 0; p < k; ++p) {
            const int at = listed(i, p, k);
            if (!fell && !(it > logits[at])) continue;
            std::swap(logits[at], it), std::swap(keys[at], key);
            fell = true;
        }
    }
}

}  // namespace
}  // namespace sightline
