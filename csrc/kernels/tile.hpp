// A tile of logits, a block's rows times kTile keys: which part of it each row admits, and the memory its work takes.
#pragma once

#include "direct.hpp"
#include "top.hpp"

namespace sightline {
namespace {

constexpr int kGroups = (kRows + kRegisterRows - 1) / kRegisterRows;

// The rows of a register tile are a group.
INLINE int groups_of(const Block& b) { return (b.rows + kRegisterRows - 1) / kRegisterRows; }

// Keys j0 + from ... j0 + to - 1 of a tile are all that some rows admit; whole panels.
struct Span {
    int from, to;
};

struct Scratch {
    void* queries;                    // [kRows, depth] words
    uint32_t* padded;                 // [kDirectRows, .] the same, for keys read as they lie
    char* keys;                       // [kTile, depth] words, where keys are packed tile by tile
    char* values;                     // one moment's tile
    float* tile;                      // [kRows, kTile] logits
    Pair* weights;                    // [kRows, kTile / 2]
    float *highest, *shift, *offset;  // [kRows] of a tile: its largest logit; 2^offset; log2 e^(old - new reference)
    float* maxima;                    // [kTogether, kLanes] the largest logits of parts of a row of a tile
    float *sums, *slopes;             // [kRegisterRows, kLanes] of exponentials in the making: see Beside
    float *base, *most;               // [kRegisterRows] what they are relative to; [kLanes] the largest power
    int* places;                      // of candidates for the lists of largest logits
    int64_t* numbers;                 // [kTogether / kLongs, kTile, kLongs] what they rank as, row beside row
    Span span[kGroups];

    Scratch(const Request& r, Carver& at) {
        long widest = 0;
        for (const Observation& o : r.observations)
            if (o.what == What::moment && up(o.count, kPanel) > widest) widest = up(o.count, kPanel);
        queries = at.take<float>(static_cast<size_t>(kRows * depth(r)));
        padded = at.take<uint32_t>(static_cast<size_t>(kDirectRows * up(depth(r), kLanes)));
        keys = at.take<char>(static_cast<size_t>(4 * kTile * depth(r)));
        values = at.take<char>(static_cast<size_t>(4 * kTile * widest));
        tile = at.take<float>(kRows * kTile);
        weights = at.take<Pair>(kRows * kTile / 2);
        highest = at.take<float>(kRows + kLanes);
        shift = at.take<float>(kRows + kLanes);
        offset = at.take<float>(kRows + kLanes);
        maxima = at.take<float>(kTogether * kLanes);
        sums = at.take<float>(kRegisterRows * kLanes);
        slopes = at.take<float>(kRegisterRows * kLanes);
        base = at.take<float>(kRegisterRows);
        most = at.take<float>(kLanes);
        places = at.take<int>(kTogether * kTile + kBits);
        numbers = at.take<int64_t>(kTogether * kTile);
    }
};

// What the rows of each register tile admit: outside of it nothing is multiplied, under a causal mask half a tile. Rows
// whose keys are read as they lie stay together.
INLINE void find_spans(const Block& b, int j0, int width, Span* span) {
    const int together = !b.keys && direct(b) ? kRows : kRegisterRows;
    for (int i = 0; i < b.rows; i += kRegisterRows, ++span) {
        int lo = j0 + width, hi = j0;
        for (int k = i / together * together; k < i + together && k < b.rows; ++k) {
            const Row row = b.row[k];
            if (row.lo >= row.hi) continue;
            if (row.lo < lo) lo = row.lo;
            if (row.hi > hi) hi = row.hi;
        }
        span->from = lo > j0 ? (lo - j0) / kPanel * kPanel : 0;
        span->to = hi < j0 + width ? static_cast<int>(up(hi - j0, kPanel)) : width;
        if (span->from >= span->to) span->from = span->to = 0;
    }
}

}  // namespace
}  // namespace sightline
