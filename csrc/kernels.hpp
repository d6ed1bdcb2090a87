// What the engine asks of an instruction set, and the block of rows that both work on.
#pragma once

#include <cstddef>

#include "request.hpp"

namespace sightline {

constexpr int kRows = 96;  // most rows of a block

constexpr int kBand = 4;         // most blocks of a band, whose gradients are made at once
constexpr int kBandRows = 48;    // rows of one of them
constexpr int kMostShares = 64;  // tasks that sum up one key head's gradients

// Query `query` of head `head`: it admits keys lo <= j < hi.
struct Row {
    int head, query;
    int lo, hi;
};

// The fold of each row over the keys so far, [rows, ...]. lanes: floats in a vector.
struct State {
    float* reference;  // [rows] a logit that none exceeds by far (see kSlack), before what is left of the scale; -inf
                       // at first
    float* mass;       // [rows, lanes] sum of e^(s - reference)
    float* slope;      // [rows, lanes] sum of e^(s - reference) log2 e^(s - reference); none without an entropy
    float* moments;    // one [rows, width] after the other
    float* top;        // [rows, tops] the largest logits, best first; -inf where there are fewer keys
    int* top_keys;     // [rows, tops] theirs; -1 there
};

// Part of a settled reduction that one task sums up: rows row0 ... and columns col0 ... of one head's result, `each`
// floats in every cell.
struct Window {
    float* data;
    long row0, rows, col0, cols, each;
};

// Some rows of one batch entry and key head against keys j0:j1, on one thread.
struct Block {
    const Request* request;
    int batch, key_head;
    int rows;
    Row row[kRows];
    int j0, j1;
    const char* keys;           // packed for the whole head; none: packed tile by tile
    const char* const* values;  // one per moment
    const char* field;          // the field's values, packed likewise
    bool overlap;               // take exponentials beside products: see Kernels
    State state;
    char* scratch;
    float* strip;            // [tiles, strip_rows, tile] unnormalised weights; none if nothing needs settled ones
    float* strip_reference;  // [tiles, strip_rows] what each is relative to
    int strip_rows;
    float reference[kRows];  // once finished: the fold's reference, and what weighs e^(s - reference); 0 without keys
    float share[kRows];
    int first_head;         // head of windows[0]
    const Window* windows;  // [heads, observations]
};

// The gradients of a request's results. Where the request has an output it has the row's log-sum-exp to read instead.
// What is to be made is contiguous unless it says otherwise, and none where not wanted.
struct Gradients {
    const Request* request;
    const View* of;        // one per observation: the gradient of its result, none where none flows
    View of_lse;           // [b, h, n]
    View q, k;             // made: [b, h, n, d], [b, hk, m, d]
    const View* operands;  // made, one per observation: [b, hk or more, m, c] of a moment; f32 for every query head:
                           // [b, h, n] of received, [b, h, n, c] of a column moment
    float* offset;         // made: [b, h, n] what is taken off dP before it is weighed, sum_j P_ij dP_ij - d lse_i
    float* relative;       // made: [b, h, n + m - 1] sums of dS along its diagonals
    float* row_sums;       // made: [b, h, n] sums of dS, zeros at first; [b, h, m] likewise
    float* column_sums;
    View additive;            // made: f32 [b, h, n, m] sums of dS over what is broadcast, zeros at first
    std::size_t strip_bytes;  // of a thread's strips; longer ones are made twice instead
};

// How the offsets of rows are had before dS is used.
enum class Offsets : int {
    known,    // from results that are linear in P: sum_j P_ij (g_i . f_j) = g_i . (P f)_i
    strips,   // P and dP are kept for all keys while their products are summed up
    weights,  // P alone is, and dP made once more
    twice,    // tiles are made once to sum up and once to use
};

// Some rows of one (batch, key head), all with the same keys, whose gradients one task makes.
struct Share {
    const Gradients* gradients;
    int batch, key_head;
    bool alone;  // it has all rows of that key head
    int blocks;  // of a band
    Offsets offsets;
    const char* packed;  // keys and moments of the whole key head
    char* sums;          // what keys gather from the share's rows
    char* scratch;
};

struct BackwardKernels {
    std::size_t (*packed_bytes)(const Gradients&);
    std::size_t (*sums_bytes)(const Gradients&, bool alone);
    std::size_t (*scratch_bytes)(const Gradients&, int blocks, Offsets);
    bool (*remakes)(const Gradients&);  // whether making dP once more takes less than memory far away
    void (*pack)(const Gradients&, int batch, int key_head, int j0, int j1, char* packed);
    void (*start)(const Share&);                          // its sums are zeros
    void (*add)(const Share&, Block* blocks, int count);  // gradients of a band, whose rows are of one head
    void (*join)(const Share* shares, int count, int piece, int pieces);  // one key head's sums, in order, into results
};

// One instruction set's kernels.
struct Kernels {
    const char* name;
    int panel;  // keys side by side in packed operands
    int tile;   // keys scored at a time; tiles start at its multiples, whatever the rows
    int rows;   // of a block, where queries are many
    int few;    // rows, at most, whose keys are read as they lie
    // Exponentials cost less beside products: registers are left beside those of a product, and the processor's vector
    // pipes are not all for multiply-adds.
    bool overlaps;
    bool thirds;  // floats can be multiplied as sums of three bf16 numbers

    // The largest magnitude in rows i0 ... i1 - 1, as the bits of a float; more than infinity's where one is not a
    // number.
    uint32_t (*largest)(const View&, int batch, int head, long i0, long i1, long width);

    std::size_t (*scratch_bytes)(const Request&);
    std::size_t (*state_bytes)(const Request&);
    State (*state)(const Request&, char* memory);

    std::size_t (*key_bytes)(const Request&);                        // packed, of one head
    std::size_t (*value_bytes)(const Request&, const Observation&);  // packed, of one head
    void (*pack_keys)(const Request&, int batch, int head, int j0, int j1, char* out);
    void (*pack_values)(const Request&, const Observation&, int batch, int head, int j0, int j1, char* out);

    void (*settle)(Block&);                                         // fold keys j0:j1 into a fresh state
    void (*merge)(const Request&, int rows, State&, const State&);  // the second into the first
    void (*finish)(Block&);                                         // results of the folds
    std::size_t (*field_bytes)(const Request&);                     // packed, of one head
    void (*pack_field)(const Request&, int batch, int head, int j0, int j1, char* out);
    void (*weigh)(const Block&);  // between the two, where a field is asked for
    void (*sweep)(const Block&);  // settled reductions, from the strip

    BackwardKernels backward;

    const Kernels* vectors =
        nullptr;  // better ones for floats but thirds, and for few rows without gradients: see usable()
};

// The kernels of a set that serve a call best: see Kernels::vectors.
ALWAYS_INLINE const Kernels& suited(const Kernels& set, bool vectors) {
    return vectors && set.vectors ? *set.vectors : set;
}

ALWAYS_INLINE int heads_of(const Observation& o, const Dims& d, int query_head) {
    return static_cast<int>(static_cast<long>(query_head) * o.operand.heads / d.h);
}

ALWAYS_INLINE long up(long size, long unit) { return (size + unit - 1) / unit * unit; }

}  // namespace sightline
