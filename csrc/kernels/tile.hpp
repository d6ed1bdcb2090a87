// A tile of logits, a block's rows times kTile keys: which part of it each row admits, and the memory its work takes.
#pragma once

#include <climits>

#include "direct.hpp"
#include "top.hpp"

namespace sightline {
namespace {

constexpr int kGroups = (kRows + kGroupRows - 1) / kGroupRows;

// The rows that are multiplied at once are a group.
INLINE int groups_of(const Block& b) { return (b.rows + kGroupRows - 1) / kGroupRows; }

// Those of kSome from `group` on that there are.
template <int kSome>
INLINE int groups_from(const Block& b, int group) {
    return groups_of(b) - group < kSome ? groups_of(b) - group : kSome;
}

// Keys j0 + from ... j0 + to - 1 of a tile are all that some rows admit; whole panels. whole: every row admits every
// key of the tile.
struct Span {
    int from, to;
    bool whole = false;
};

// Keys that some row of a group admits, lo ... hi - 1, and that every row does.
struct Bounds {
    int lo, hi, every_lo, every_hi;
};

struct Scratch {
    void* queries;                    // [kRows, depth] words
    uint32_t* padded;                 // [kDirectRows, .] the same, for keys read as they lie
    char* keys;                       // [kTile, depth] words, where keys are packed tile by tile
    char* values;                     // one moment's tile
    float* tile;                      // [kRows, kTile] logits
    float* floats;                    // [kRows, kTile] weights, in the logits' place but for thirds
    Pair* weights;                    // [kRows, kTile / 2], or as many thirds one after the other
    float* product;                   // [kThirdGroups kGroupRows, width], where thirds are multiplied
    float *highest, *shift, *offset;  // [kRows] of a tile: its largest logit; 2^offset; log2 e^(old - new reference)
    float* maxima;         // [kRows, kLanes] the largest logits so far of parts of a row; [kRows] of all of it
    float *sums, *slopes;  // [kGroupRows, kLanes] of exponentials in the making: see Beside
    float *base, *most;    // [kGroupRows] what they are relative to; [kLanes] the largest power
    Waiting waiting;       // candidates for the lists of largest logits
    Bounds bounds[kGroups];
    Span span[kGroups];

    Scratch(const Request& r, Carver& at) {
        long widest = 0;
        bool lists = false, apart = false;
        for (const Observation& o : r.observations) {
            if (o.what == What::moment && up(o.count, kPanel) > widest) widest = up(o.count, kPanel);
            lists |= o.what == What::peak || o.what == What::top;
            apart |= thirds(r) && o.what == What::moment && form(r, o) == Form::floats;
        }
        queries = at.take<float>(static_cast<size_t>(kRows * row_words(r)));
        padded = at.take<uint32_t>(static_cast<size_t>(kDirectRows * up(depth(r), kLanes)));
        keys = at.take<char>(static_cast<size_t>(4 * kTile * depth(r)));
        values = at.take<char>(static_cast<size_t>(4 * kTile * widest));
        tile = at.take<float>(kRows * kTile);
        floats = apart ? at.take<float>(kRows * kTile) : tile;
        weights = at.take<Pair>(kRows * kTile / 2 * (thirds(r) ? kThirds : 1));
        product = at.take<float>(thirds(r) ? static_cast<size_t>(kThirdGroups * kGroupRows * widest) : 0);
        highest = at.take<float>(kRows + kTogether);
        shift = at.take<float>(kRows + kLanes);
        offset = at.take<float>(kRows + kLanes);
        maxima = at.take<float>(kRows * kLanes);
        sums = at.take<float>(kGroupRows * kLanes);
        slopes = at.take<float>(kGroupRows * kLanes);
        base = at.take<float>(kGroupRows);
        most = at.take<float>(kLanes);
        waiting.logits = at.take<float>(lists ? kRows * kRoom : 0);
        waiting.keys = at.take<int>(lists ? kRows * kRoom : 0);
        waiting.counts = at.take<int>(kRows);
    }
};

// What the rows of each group admit. Rows whose keys are read as they lie stay together.
INLINE void find_bounds(const Block& b, Bounds* bounds) {
    const int together = !b.keys && direct(b) ? kRows : kGroupRows;
    for (int i = 0; i < b.rows; i += kGroupRows, ++bounds) {
        *bounds = {INT_MAX, 0, 0, INT_MAX};
        for (int k = i / together * together; k < i + together && k < b.rows; ++k) {
            const Row row = b.row[k];
            if (row.lo > bounds->every_lo) bounds->every_lo = row.lo;
            if (row.hi < bounds->every_hi) bounds->every_hi = row.hi;
            if (row.lo >= row.hi) continue;
            if (row.lo < bounds->lo) bounds->lo = row.lo;
            if (row.hi > bounds->hi) bounds->hi = row.hi;
        }
    }
}

// The part of a tile that the rows of each group admit: outside of it nothing is multiplied, under a causal mask half a
// tile.
INLINE void find_spans(const Block& b, const Bounds* bounds, int j0, int width, Span* span) {
    for (int i = 0; i < b.rows; i += kGroupRows, ++span, ++bounds) {
        span->from = bounds->lo > j0 ? (bounds->lo - j0) / kPanel * kPanel : 0;
        span->to = bounds->hi < j0 + width ? static_cast<int>(up(bounds->hi - j0, kPanel)) : width;
        if (span->from >= span->to) span->from = span->to = 0;
        span->whole = bounds->every_lo <= j0 && bounds->every_hi >= j0 + width;
    }
}

// Groups that are multiplied at once have one span.
INLINE void join_spans(const Block& b, Span* span) {
    for (int group = 0; group + 1 < groups_of(b); group += kThirdGroups) {
        Span &x = span[group], &y = span[group + 1];
        if (x.from == x.to) x.from = y.from, x.to = y.to;
        if (y.from == y.to) y.from = x.from, y.to = x.to;
        x.from = y.from = x.from < y.from ? x.from : y.from;
        x.to = y.to = x.to > y.to ? x.to : y.to;
    }
}

}  // namespace
}  // namespace sightline
