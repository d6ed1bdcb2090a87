// One call, as the kernels see it: pointers, strides and sizes. No Python, no Torch.
#pragma once

#include <cstdint>
#include <vector>

// What kernels call from shared headers must not become a function of its own: the linker would keep one copy of it,
// made for an instruction set that the machine may lack.
#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace sightline {

enum class Kind : int { f32, bf16, f16, f64, i64, i32, u8 };

// A tensor with up to four dimensions; strides count elements, 0 where a dimension is broadcast.
// heads: how many heads it holds; query head h of H reads head h * heads / H.
struct View {
    const void* data = nullptr;
    Kind kind = Kind::f32;
    long stride[4] = {0, 0, 0, 0};
    int heads = 1;

    ALWAYS_INLINE explicit operator bool() const { return data != nullptr; }
    // Element (b, h, i, j), counted from `data`.
    ALWAYS_INLINE long at(long b, long h, long i, long j = 0) const {
        return b * stride[0] + h * stride[1] + i * stride[2] + j * stride[3];
    }
};

// b batch entries, h query heads, hk key heads, n queries, m keys, d width.
struct Dims {
    int b, h, hk, n, m, d;
    ALWAYS_INLINE int group() const { return h / hk; }
};

// s = softcap(scale * q.k) + relative + additive where lo <= j < hi and allowed; see sightline/scores.py.
struct Scores {
    float scale = 1;
    float softcap = 0;  // 0: none
    View lo, hi;        // i32 [b, ., n]
    View allowed;       // u8 [b, h, n, m]
    View relative;      // f32 [., h, ., n + m - 1]
    View additive;      // any floating kind [b, h, n, m]
    View sinks;         // any floating kind [., h]
};

enum class What : int {
    moment,         // P f            operand [b, ., m, c]
    entropy,        //
    peak,           // value, key
    top,            // count keys
    received,       // operand [b, ., n] or none
    column_max,     //
    column_moment,  // P^T w          operand [b, ., n, c]
    block_mass,     // rows x cols
    block_max,      // rows x cols
    rows,           // operand i64 [count]
    entries,        // operand i64 [b, ., n, count]
    segment_mass,   // operand i64 [b, ., m]
};

// One reduction. out: contiguous, [b, h, ...] as sightline.reductions shapes it; out_kind: its element type.
struct Observation {
    What what;
    View operand;
    long count = 0;
    long rows = 0, cols = 0;
    void* out = nullptr;       // to be written; what gradients are taken of, if it is there
    void* out_keys = nullptr;  // i64: keys of a peak
    Kind out_kind = Kind::f32;
    bool thirds = false;  // so may a moment's operand: see Request

    ALWAYS_INLINE bool settled() const { return what >= What::received; }
    ALWAYS_INLINE bool maximum() const { return what == What::column_max || what == What::block_max; }
};

// Which part of R = P o (dO v^T) settled reductions reduce instead of P. v [b, ., m, width], grad_out [b, h, n, width].
enum class Part : int { none, whole, positive, absolute };

struct Field {
    Part part = Part::none;
    View v, grad_out;
    long width = 0;
};

struct Request {
    Dims dims;
    View q, k;
    Scores scores;
    Field field;
    std::vector<Observation> observations;
    bool thirds = false;   // queries and keys may be multiplied as sums of three bf16 numbers
    float* lse = nullptr;  // [b, h, n]
};

}  // namespace sightline
