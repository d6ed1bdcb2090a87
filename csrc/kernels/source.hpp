// Rows of a tensor as vectors to multiply, read where they lie. An element may be narrower than the word it becomes.
#pragma once

#include "multiply.hpp"

namespace sightline {
namespace {

typedef uint16_t Shorts __attribute__((vector_size(2 * kLanes)));

// The first `bytes` of a vector, none past them read; the rest 0.
template <class V>
INLINE V load_part(const char* p, long bytes) {
#if defined(__AVX512F__)
    const long some = bytes < 0 ? 0 : bytes;
    if constexpr (sizeof(V) == 64) return (V)_mm512_maskz_loadu_epi8(some < 64 ? (1ull << some) - 1 : ~0ull, p);
    else return (V)_mm256_maskz_loadu_epi8(some < 32 ? (1u << some) - 1 : ~0u, p);
#else
    V v{};
    if (bytes > 0) std::memcpy(&v, p, bytes < long{sizeof v} ? static_cast<size_t>(bytes) : sizeof v);
    return v;
#endif
}

template <class V, bool kWhole>
INLINE V load_as(const char* p, long bytes) {
    if constexpr (kWhole) return load<V>(p);
    else return load_part<V>(p, bytes);
}

INLINE Words widened(Shorts x) {
#if defined(__AVX512F__)
    return (Words)_mm512_cvtepu16_epi32((__m256i)x);  // GCC makes two halves of it otherwise
#else
    return __builtin_convertvector(x, Words);
#endif
}

INLINE Floats from_halves(Shorts x) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtph_ps((__m256i)x);
#else
    const Words wide = widened(x), sign = (wide & 0x8000) << 16, rest = (wide & 0x7FFF) << 13;
    const Floats finite = (Floats)rest * 0x1p112f;  // the exponent had a bias of 15, not 127
    const Ints special = (Ints)rest >= splat(int32_t{0x7C00 << 13});
    return (Floats)((Words)pick(special, (Floats)(rest | 0x7F800000), finite) | sign);
#endif
}

INLINE Floats multiplied(Floats acc, Floats a, Floats b) { return fma(a, b, acc); }

// A source: kBytes of an element; kStep elements make a vector; kKeys rows of values are multiplied at a time.
// row<whole>(p, bytes): a vector of a key's row, of which so many bytes are there.
// columns<whole, C>(rows, bytes, out): C vectors of columns.
template <class Self>
struct OneByOne {
    static constexpr int kStep = kLanes, kKeys = 1;
    using Vector = Floats;
    template <bool kWhole, int C>
    static INLINE void columns(const char* const (&row)[1], long bytes, Floats (&out)[C]) {
#pragma GCC unroll 16
        for (int c = 0; c < C; ++c) {
            const long at = c * kLanes * Self::kBytes;
            out[c] = Self::template row<kWhole>(row[0] + at, bytes - at);
        }
    }
};

struct Single : OneByOne<Single> {
    static constexpr int kBytes = 4;
    template <bool kWhole>
    static INLINE Floats row(const char* p, long bytes) {
        return load_as<Floats, kWhole>(p, bytes);
    }
};

struct Brain : OneByOne<Brain> {
    static constexpr int kBytes = 2;
    template <bool kWhole>
    static INLINE Floats row(const char* p, long bytes) {
        return (Floats)(widened(load_as<Shorts, kWhole>(p, bytes)) << 16);
    }
};

struct Half : OneByOne<Half> {
    static constexpr int kBytes = 2;
    template <bool kWhole>
    static INLINE Floats row(const char* p, long bytes) {
        return from_halves(load_as<Shorts, kWhole>(p, bytes));
    }
};

#if defined(__AVX512BF16__)

INLINE Floats multiplied(Floats acc, Ints a, Ints b) {
    return (Floats)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
}

// Words of two bf16: neighbours of a key's row, and of two values' rows the elements of a column.
struct Paired {
    static constexpr int kBytes = 2, kStep = 2 * kLanes, kKeys = 2;
    using Vector = Ints;
    template <bool kWhole>
    static INLINE Ints row(const char* p, long bytes) {
        return load_as<Ints, kWhole>(p, bytes);
    }
    template <bool kWhole, int C>
    static INLINE void columns(const char* const (&row)[2], long bytes, Ints (&out)[C]) {
        const __m512i order = (__m512i)counting();
        const __m512i other = _mm512_slli_epi32(_mm512_add_epi32(order, _mm512_set1_epi32(2 * kLanes)), 16);
        const __m512i low = _mm512_or_si512(order, other);
        const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(kLanes));
#pragma GCC unroll 8
        for (int c = 0; c < C; c += 2) {
            const long at = c * kLanes * kBytes;
            const __m512i a = (__m512i)load_as<Ints, kWhole>(row[0] + at, bytes - at);
            const __m512i b = (__m512i)load_as<Ints, kWhole>(row[1] + at, bytes - at);
            out[c] = (Ints)_mm512_permutex2var_epi16(a, low, b);
            out[c + 1] = (Ints)_mm512_permutex2var_epi16(a, high, b);
        }
    }
};

#endif

}  // namespace
}  // namespace sightline
