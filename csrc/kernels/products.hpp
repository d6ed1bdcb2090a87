// The two products of a tile: rows with its keys, and their e^(s - reference) with the values of every moment; and what
// comes between them where matrix registers make them.
#pragma once

#include "field.hpp"
#include "powers.hpp"

namespace sightline {
namespace {

// Every tile of a block's keys: use(first key, width, how many came before). The last first: what weighs most is often
// what came last, and lists of largest logits cut well once they have it. Keys that are not packed come in their order,
// as memory wants it. Where they stand decides alone: a row meets its tiles in the same order whatever block it is in.
template <class Use>
INLINE void for_tiles(const Block& b, Use use) {
    const int begin = b.j0 / kTile * kTile, tiles = b.j0 < b.j1 ? (b.j1 - 1 - begin) / kTile + 1 : 0;
    for (int before = 0; before < tiles; ++before) {
        const int j0 = begin + (b.keys ? tiles - 1 - before : before) * kTile;
        use(j0, static_cast<int>(up(b.j1 - j0 < kTile ? b.j1 - j0 : kTile, kPanel)), before);
    }
}

// Where a tile's weights go as floats.
INLINE float* strip_at(const Block& b, const Scratch& at, int j0) {
    return b.strip ? b.strip + static_cast<long>(j0 / kTile) * b.strip_rows * kTile : at.floats;
}

// A settled tile holds a weight for every key: 0 outside the spans.
INLINE void clear_outside(const Block& b, const Scratch& at, int width, float* tile) {
    for (int i = 0; i < b.rows; ++i) {
        const Span span = at.span[i / kGroupRows];
        float* x = tile + i * kTile;
        for (int j = 0; j < span.from; j += kLanes) store(x + j, Floats{});
        for (int j = span.to; j < width; j += kLanes) store(x + j, Floats{});
    }
}

// What the strip's part of a tile is relative to.
INLINE void end_strip(const Block& b, const Scratch& at, int j0, int width, float* weights) {
    std::memcpy(b.strip_reference + static_cast<long>(j0 / kTile) * b.strip_rows, b.state.reference,
                sizeof(float) * static_cast<size_t>(b.rows));
    clear_outside(b, at, width, weights);
}

// Add a tile's e^(s - reference) times the values of one moment, read as they lie.
INLINE void add_direct(const Block& b, const Scratch& at, const Observation& o, int j0, int width, const float* tile,
                       float* into) {
    const bool paired = pairs(*b.request, o);
    const int from = b.j0 > j0 ? b.j0 - j0 : 0, to = b.j1 - j0 < width ? b.j1 - j0 : width;
    const int head = heads_of(o, b.request->dims, b.row[0].head);
    const void* weights = paired ? static_cast<const void*>(at.weights) : tile;
    with_source(o.operand.kind, paired, [&](auto source) {
        gather_direct<decltype(source)>(b, o, head, j0, from, to, static_cast<const uint32_t*>(weights),
                                        paired ? kTile / 2 : kTile, into, up(o.count, kPanel), at.shift, at.values);
    });
}

// A moment's values at the keys of a tile, in panels `length` words long; so is every third of one.
struct Values {
    const char* panels;
    long length;
};

INLINE Values values_of(const Block& b, const Scratch& at, const Observation& o, int moment, int j0, int width) {
    const Request& r = *b.request;
    if (b.values) {
        const size_t skip = static_cast<size_t>(value_words(r, o, j0) * kPanel);
        return {b.values[moment] + sizeof(float) * skip, value_words(r, o, r.dims.m)};
    }
    const long length = value_words(r, o, kTile);
    const int j1 = j0 + width < r.dims.m ? j0 + width : r.dims.m;
    pack_down(o.operand, static_cast<int>(o.count), pairs(r, o), b.batch, heads_of(o, r.dims, b.row[0].head), j0, j1,
              length, at.values);
    return {at.values, length};
}

// The same as thirds, of some groups: c = product, or with `shift`, c = shift_r c + product.
template <class Work>
INLINE void add_thirds(const Scratch& at, const Values& values, int group, int groups, long columns, float* c,
                       const float* shift, Work& beside) {
    const int i = group * kGroupRows;
    const Span span = at.span[group];
    multiply_thirds(groups, at.weights + (i * kTile + span.from) / 2, kTile / 2, kRows * kTile / 2,
                    reinterpret_cast<const Pair*>(values.panels) + span.from / 2 * kPanel,
                    kThirds * values.length * kPanel, values.length * kPanel, (span.to - span.from) / 2, columns,
                    shift ? at.product : c, columns, beside);
    for (int r = 0; shift && r < groups * kGroupRows; ++r)
        for (long x = r * columns; x < (r + 1) * columns; x += kLanes)
            store(c + x, fma(load(c + x), splat(shift[r]), load(at.product + x)));
}

// Add a group's e^(s - reference) times the values of one moment.
template <class Work>
INLINE void add_packed(const Block& b, const Scratch& at, const Observation& o, const Values& values, int group,
                       const float* tile, float* into, const float* shift, Work& beside) {
    const Span span = at.span[group];
    const int i = group * kGroupRows;
    const long columns = up(o.count, kPanel);
    if (span.from == span.to) return;
    if (form(*b.request, o) == Form::thirds)
        return add_thirds(at, values, group, groups_from<kThirdGroups>(b, group), columns, into + i * columns,
                          shift ? shift + i : nullptr, beside);
    const auto run = [&](const auto* weights, long row) {
        using Word = std::remove_cv_t<std::remove_pointer_t<decltype(weights)>>;
        const int from = std::is_same_v<Word, Pair> ? span.from / 2 : span.from;
        const int to = std::is_same_v<Word, Pair> ? span.to / 2 : span.to;
        multiply_group(b.rows - i, weights + i * row + from, row,
                       reinterpret_cast<const Word*>(values.panels) + from * kPanel, values.length, to - from, columns,
                       into + i * columns, columns, shift ? shift + i : nullptr, beside);
    };
    if (pairs(*b.request, o)) run(at.weights, kTile / 2);
    else run(tile, kTile);
}

// All moments but the `done` first.
INLINE void moments(const Block& b, const Scratch& at, int j0, int width, const float* tile, bool first, int done) {
    const Request& r = *b.request;
    float* into = b.state.moments;
    Nothing nothing;
    int moment = 0;
    for (const Observation& o : r.observations) {
        if (o.what != What::moment) continue;
        if (moment >= done) {
            if (!b.values && direct(b)) {
                add_direct(b, at, o, j0, width, tile, into);
            } else {
                const Values values = values_of(b, at, o, moment, j0, width);
                const int together = form(r, o) == Form::thirds ? kThirdGroups : 1;
                for (int group = 0; group < groups_of(b); group += together)
                    add_packed(b, at, o, values, group, tile, into, first ? nullptr : at.shift, nothing);
            }
        }
        into += kRows * up(o.count, kPanel);
        ++moment;
    }
}

// The products of a group's rows with the keys of a tile, packed, into [kGroupRows, kTile].
template <class Work>
INLINE void multiply_keys(const Block& b, const Scratch& at, const char* keys, int group, float* into, Work& beside) {
    const long words = depth(*b.request);
    const Span span = at.span[group];
    const int i = group * kGroupRows;
    const auto run = [&](const auto* word) {
        using Word = std::remove_cv_t<std::remove_pointer_t<decltype(word)>>;
        const Word *rows = static_cast<const Word*>(at.queries) + i * words,
                   *panels = reinterpret_cast<const Word*>(keys);
        multiply_group(b.rows - i, rows, words, panels + span.from * words, words, words, span.to - span.from,
                       into + span.from, kTile, nullptr, beside);
    };
    if (pairs(*b.request)) run(static_cast<const Pair*>(nullptr));
    else run(static_cast<const float*>(nullptr));
}

// The same as thirds, of some groups.
template <class Work>
INLINE void multiply_key_thirds(const Block& b, const Scratch& at, const char* keys, int group, float* into,
                                Work& beside) {
    const long words = depth(*b.request);
    const Span span = at.span[group];
    multiply_thirds(groups_from<kThirdGroups>(b, group),
                    static_cast<const Pair*>(at.queries) + group * kGroupRows * words, words, kRows * words,
                    reinterpret_cast<const Pair*>(keys) + kThirds * words * span.from, kThirds * words * kPanel,
                    words * kPanel, words, span.to - span.from, into + span.from, kTile, beside);
}

// Keys j0 ... of a whole head's packed ones.
INLINE const char* keys_at(const Block& b, int j0) {
    return b.keys + sizeof(float) * static_cast<size_t>(j0 * row_words(*b.request));
}

// The products of groups `from` ... `to` - 1 with keys j0 ... j0 + width - 1; of all, where keys are not packed.
INLINE void products(const Block& b, const Scratch& at, int from, int to, int j0, int width) {
    const Request& r = *b.request;
    if (!b.keys && direct(b))
        return with_source(r.k.kind, pairs(r), [&](auto source) {
            score_direct<decltype(source)>(b, at.padded, j0, width, at.tile, at.keys);
        });
    if (!b.keys)
        pack_across(r.k, r.dims.d, pairs(r), b.batch, b.key_head, j0, j0 + width < r.dims.m ? j0 + width : r.dims.m,
                    at.keys);
    Nothing nothing;
    for (int group = from; group < to; ++group)
        multiply_keys(b, at, b.keys ? keys_at(b, j0) : at.keys, group, at.tile + (group - from) * kGroupRows * kTile,
                      nothing);
}

INLINE const Observation* first_moment(const Request& r) {
    for (const Observation& o : r.observations)
        if (o.what == What::moment) return &o;
    return nullptr;
}

// Rows `first` ... `end` - 1 of a tile, from a group's first on, as multiplied: tile, the first's row.
struct Multiplied {
    int first, end, j0, width, before;
    float* tile;
};

// They turn into logits, and fold, while matrix registers rest.
INLINE void fold_resting(const Block& b, const Folds& folds, const Scratch& at, const Multiplied& m, float scale,
                         float unit) {
    bool whole = true;
    for (int group = m.first / kGroupRows; group * kGroupRows < m.end; ++group) whole &= at.span[group].whole;
    if (!whole || shaped(b.request->scores)) score(b, m.first, m.end, m.j0, m.width, scale, m.tile);
    fold_largest(folds, at, m.first, m.end, m.tile, m.before);
    if (folds.top) {
        if (m.before < kBounded) keep_awake();  // candidates are many at first
        fold_top(b, folds, at, m.first, m.end, m.j0, m.tile, m.before);
        keep_awake();
    }
    move_references(b, at, m.first, m.end, unit, slack(folds));
}

}  // namespace
}  // namespace sightline
