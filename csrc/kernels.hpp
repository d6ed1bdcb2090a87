// What the engine asks of an instruction set, and the block of rows that both work on.
#pragma once

#include <cstddef>

#include "request.hpp"

namespace sightline {

constexpr int kTile = 256;  // keys scored at a time; tiles start at its multiples, whatever the rows
constexpr int kRows = 48;   // rows of a block

// Query `query` of head `head`: it admits keys lo <= j < hi.
struct Row {
    int head, query;
    int lo, hi;
};

// The fold of each row over the keys so far, [rows, ...]. lanes: floats in a vector.
struct State {
    float* reference;  // [rows] the largest logit, -inf before any
    float* mass;       // [rows, lanes] sum of e^(s - reference)
    float* slope;      // [rows, lanes] sum of e^(s - reference) (s - reference); none without an entropy
    float* moments;    // one [rows, width] after the other
    float* top;        // [rows, tops] the largest logits, descending
    int* top_keys;     // [rows, tops]
    float* peak;       // [rows]
    int* peak_key;     // [rows] -1 before any
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
    State state;
    char* scratch;
    float* strip;            // [tiles, strip_rows, kTile] unnormalised weights; none if nothing needs settled ones
    float* strip_reference;  // [tiles, strip_rows] what each is relative to
    int strip_rows;
    float reference[kRows];  // once finished: final reference, and 1 / total mass, 0 for rows without keys
    float share[kRows];
    int first_head;         // head of windows[0]
    const Window* windows;  // [heads, observations]
};

// The gradients of a request's results. Where the request has an output it has the row's log-sum-exp to read instead.
struct Gradients {
    const Request* request;
    const View* of;         // one per observation: the gradient of its result, none where none flows
    View of_lse;            // [b, h, n]
    float* q;               // [b, h, n, d]; all of these are contiguous
    float* k;               // [b, hk, m, d]
    float* const* moments;  // one per observation: [b, hk, m, c], none where not wanted
    float* offset;          // [b, h, n] what is taken off dP before it is weighed: sum_j P_ij dP_ij - d lse_i
};

// One instruction set's kernels.
struct Kernels {
    const char* name;
    int panel;  // keys side by side in packed operands

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

    // Gradients of one (batch, key head), whose rows the blocks hold, with memory of so many bytes.
    std::size_t (*backward_bytes)(const Request&);
    void (*backward)(const Gradients&, Block* blocks, long count, char* memory);
};

ALWAYS_INLINE int heads_of(const Observation& o, const Dims& d, int query_head) {
    return static_cast<int>(static_cast<long>(query_head) * o.operand.heads / d.h);
}

ALWAYS_INLINE long up(long size, long unit) { return (size + unit - 1) / unit * unit; }

}  // namespace sightline
