// What the backward keeps: packed operands of a key head, sums that keys gather, and a thread's band of rows.
#pragma once

#include "down.hpp"
#include "finish.hpp"

namespace sightline {
namespace {

constexpr int kMostMoments = 8;  // with gradients
constexpr int kPairRows = kThirdGroups * kGroupRows;

INLINE float* floats_of(const View& made) { return static_cast<float*>(const_cast<void*>(made.data)); }

// A moment with a gradient: P f.
struct Moment {
    const Observation* what;
    View of, made;  // the gradient of its result, and of f where wanted
    long width, columns;
    Form across;  // of what D = g f^T multiplies
    bool down;    // whether df = P^T g multiplies pairs
    int copies;   // heads of f that share a key head
    // Of a row, and of one third of it.
    long words() const { return across == Form::thirds ? kThirds * depth() : depth(); }
    long depth() const {
        return across == Form::thirds ? up(width, kPanel) / 2 : across == Form::pairs ? (width + 1) / 2 : width;
    }
};

struct Moments {
    Moment list[kMostMoments];
    int count = 0;
    bool into = false, pairs_into = false;  // whether any f wants a gradient, and from pairs

    explicit Moments(const Gradients& g) {
        const Request& r = *g.request;
        for (size_t i = 0; i < r.observations.size(); ++i) {
            const Observation& o = r.observations[i];
            if (o.what != What::moment || !g.of[i] || count == kMostMoments) continue;
            const bool paired = pairs(r, o) && g.of[i].kind == Kind::bf16;
            const Form across = paired ? Form::pairs : thirds(r) ? Form::thirds : Form::floats;
            const int copies = o.operand.heads > r.dims.hk ? o.operand.heads / r.dims.hk : 1;
            list[count++] = {&o, g.of[i], g.operands[i], o.count, up(o.count, kPanel), across, paired, copies};
            into |= static_cast<bool>(g.operands[i]);
            pairs_into |= g.operands[i] && paired;
        }
    }
};

// Keys both ways and the values of moments, of one key head.
struct PackedKeys {
    char *across, *down, *moments[kMostMoments];
    long length;  // words of a panel of `down`

    PackedKeys(const Gradients& g, const Moments& moment, Carver&& at) {
        const Request& r = *g.request;
        const long keys = up(r.dims.m, kPanel);
        length = pairs(r) ? keys / 2 : keys;
        across = at.take<char>(static_cast<size_t>(4 * keys * row_words(r)));
        down = at.take<char>(g.q ? static_cast<size_t>(4 * length * up(r.dims.d, kPanel)) : 0);
        for (int i = 0; i < moment.count; ++i) {
            const Moment& x = moment.list[i];
            moments[i] = at.take<char>(static_cast<size_t>(4 * keys * x.words() * x.copies));
        }
        bytes = at.used();
    }
    size_t bytes;
};

// What the rows of one share add up for keys and biases. A share that is alone sums straight into floats that are wide
// enough.
struct Sums {
    float *k, *moments[kMostMoments], *relative, *columns;
    size_t bytes;

    Sums(const Gradients& g, const Moments& moment, bool alone, int batch, int key_head, Carver&& at) {
        const Dims& d = g.request->dims;
        const auto place = [&](const View& made, long width, int copies) {
            if (!made) return static_cast<float*>(nullptr);
            if (straight(made, width, alone)) return floats_of(made) + made.at(batch, key_head * copies, 0);
            return at.take<float>(static_cast<size_t>(d.m * up(width, kPanel) * copies));
        };
        k = place(g.k, d.d, 1);
        for (int i = 0; i < moment.count; ++i)
            moments[i] = place(moment.list[i].made, moment.list[i].width, moment.list[i].copies);
        relative = at.take<float>(g.relative ? static_cast<size_t>(d.group()) * static_cast<size_t>(d.n + d.m - 1) : 0);
        columns = at.take<float>(g.column_sums ? static_cast<size_t>(d.group()) * static_cast<size_t>(d.m) : 0);
        bytes = at.used();
    }
    static bool straight(const View& made, long width, bool alone) {
        return alone && made.kind == Kind::f32 && width % kPanel == 0;
    }
};

struct MomentRows {
    char *rows, *down;  // gradients as rows of words, and one below the other in panels of columns
};

// A thread's memory for one band. Rows of strips and of what is made of them are kStride apart.
struct BandScratch {
    char *queries, *queries_down;
    float* tile;                       // [kBandRows, kTile] logits of a block; twice [kPairRows, kTile] of thirds
    float *p, *d, *slope;              // strips [tiles, rows, kStride]: weights, their gradients; of a softcap
    Pair *p_down, *d_down, *d_across;  // of a tile: pairs along rows, and along keys
    float *dq, *sums, *offset, *ones;
    char* results;  // of some rows, side by side in a panel, where D is a product of thirds
    MomentRows moment[kMostMoments];
    long rows;              // of a full band
    long padded;            // to pairs of groups, for thirds
    long p_strip, d_strip;  // floats of a tile of one; 0 where all share it
    long columns;           // of queries and keys
    size_t bytes;

    BandScratch(const Gradients& g, const Moments& moments, int blocks, Offsets offsets, Carver&& at) {
        const Request& r = *g.request;
        const bool paired = pairs(r) && (g.q || g.k);
        const auto tiles = [&](bool all) { return all ? (r.dims.m + kTile - 1) / kTile : 1; };
        const bool keeps_d = offsets == Offsets::strips, keeps_p = keeps_d || offsets == Offsets::weights;
        rows = static_cast<long>(blocks) * kBandRows;
        p_strip = keeps_p ? rows * kStride : 0;
        d_strip = keeps_d ? rows * kStride : 0;
        columns = up(r.dims.d, kPanel);
        padded = thirds(r) ? up(rows, kPairRows) : rows;
        const auto words = [&](long count) { return at.take<char>(static_cast<size_t>(4 * count)); };
        const auto some = [&](long count) { return at.take<float>(static_cast<size_t>(count)); };
        queries = words(padded * row_words(r));
        queries_down = words(rows * columns);
        tile = some((kBandRows > 2 * kPairRows ? kBandRows : 2 * kPairRows) * kTile);
        p = some(tiles(keeps_p) * rows * kStride);
        d = some(tiles(keeps_d) * padded * kStride);
        slope = some(r.scores.softcap > 0 ? tiles(keeps_p) * rows * kStride : 0);
        p_down = at.take<Pair>(moments.pairs_into ? static_cast<size_t>(rows / 2 * kStride) : 0);
        d_down = at.take<Pair>(paired ? static_cast<size_t>(rows / 2 * kStride) : 0);
        d_across = at.take<Pair>(paired ? static_cast<size_t>(rows * (kTile / 2)) : 0);
        dq = some(rows * columns);
        sums = some(rows * kLanes);
        offset = some(rows);
        ones = some(kBandRows);
        results = words(thirds(r) ? kPanel * moments.list[0].words() : 0);
        for (int i = 0; i < moments.count; ++i) {
            const Moment& x = moments.list[i];
            moment[i] = {words(padded * x.words()), words(rows * x.columns)};
        }
        bytes = at.used();
    }
};

size_t backward_packed_bytes(const Gradients& g) { return PackedKeys(g, Moments(g), Carver(nullptr)).bytes; }

size_t backward_sums_bytes(const Gradients& g, bool alone) {
    return Sums(g, Moments(g), alone, 0, 0, Carver(nullptr)).bytes;
}

size_t backward_scratch_bytes(const Gradients& g, int blocks, Offsets offsets) {
    return BandScratch(g, Moments(g), blocks, offsets, Carver(nullptr)).bytes;
}

// Where matrix registers make it, of moments alone.
bool backward_remakes(const Gradients& g) {
    const Request& r = *g.request;
    bool moments = kMatrices;
    for (size_t i = 0; i < r.observations.size(); ++i) {
        const Observation& o = r.observations[i];
        if (g.of[i]) moments &= o.what == What::moment && pairs(r, o) && g.of[i].kind == Kind::bf16;
    }
    return moments;
}

void backward_pack(const Gradients& g, int batch, int key_head, int j0, int j1, char* packed) {
    const Request& r = *g.request;
    const Moments moments(g);
    const PackedKeys at(g, moments, Carver(packed));
    const int d = r.dims.d;
    const auto across = [&](const View& of, int width, Form form, int head, char* out) {
        if (form == Form::thirds) pack_thirds_across(of, width, batch, head, j0, j1, out);
        else pack_across(of, width, form == Form::pairs, batch, head, j0, j1, out);
    };
    across(r.k, d, form(r), key_head, at.across + 4 * j0 * row_words(r));
    if (g.q)
        pack_down(r.k, d, pairs(r), batch, key_head, j0, j1, at.length,
                  at.down + 4L * j0 / (pairs(r) ? 2 : 1) * kPanel);
    for (int i = 0; i < moments.count; ++i) {
        const Moment& x = moments.list[i];
        const long size = 4 * up(r.dims.m, kPanel) * x.words();
        for (int copy = 0; copy < x.copies; ++copy) {
            const int head =
                x.copies > 1 ? key_head * x.copies + copy : heads_of(*x.what, r.dims, key_head * r.dims.group());
            across(x.what->operand, static_cast<int>(x.width), x.across, head,
                   at.moments[i] + copy * size + 4 * j0 * x.words());
        }
    }
}

void backward_start(const Share& share) {
    const Gradients& g = *share.gradients;
    const Dims& d = g.request->dims;
    const Moments moments(g);
    const Sums sums(g, moments, share.alone, share.batch, share.key_head, Carver(share.sums));
    const auto zero = [](float* x, long count) {
        if (x) std::memset(x, 0, sizeof(float) * static_cast<size_t>(count));
    };
    zero(sums.k, d.m * up(d.d, kPanel));
    for (int i = 0; i < moments.count; ++i)
        zero(sums.moments[i], d.m * moments.list[i].columns * moments.list[i].copies);
    if (g.relative) zero(sums.relative, static_cast<long>(d.group()) * (d.n + d.m - 1));
    if (g.column_sums) zero(sums.columns, static_cast<long>(d.group()) * d.m);
}

// Sums of rows `from` ... `to` - 1, `columns` floats each, of several shares, into `made` from element `at`.
INLINE void join_rows(float* const* sums, int count, long from, long to, long columns, long width, const View& made,
                      long at) {
    alignas(64) float total[kWidest + kPanel];
    for (long j = from; j < to; ++j) {
        std::memcpy(total, sums[0] + j * columns, sizeof(float) * static_cast<size_t>(columns));
        for (int s = 1; s < count; ++s)
            for (long c = 0; c < columns; c += kLanes)
                store(total + c, load(total + c) + load(sums[s] + j * columns + c));
        write_row(total, 1, width, const_cast<void*>(made.data), made.kind, at + j * width);
    }
}

// One piece of a key head's results, out of the sums of all its shares, in their order.
void backward_join(const Share* shares, int count, int piece, int pieces) {
    const Share& share = shares[0];
    const Gradients& g = *share.gradients;
    const Dims& d = g.request->dims;
    const Moments moments(g);
    const long from = static_cast<long>(d.m) * piece / pieces, to = static_cast<long>(d.m) * (piece + 1) / pieces;
    float* sums[kMostShares];
    const auto each = [&](auto of) {
        for (int s = 0; s < count; ++s)
            sums[s] = of(Sums(g, moments, share.alone, share.batch, share.key_head, Carver(shares[s].sums)));
    };
    if (g.k && !Sums::straight(g.k, d.d, share.alone)) {
        each([](const Sums& x) { return x.k; });
        join_rows(sums, count, from, to, up(d.d, kPanel), d.d, g.k, g.k.at(share.batch, share.key_head, 0));
    }
    for (int i = 0; i < moments.count; ++i) {
        const Moment& x = moments.list[i];
        if (!x.made || Sums::straight(x.made, x.width, share.alone)) continue;
        for (int copy = 0; copy < x.copies; ++copy) {
            each([&](const Sums& y) { return y.moments[i] + copy * d.m * x.columns; });
            join_rows(sums, count, from, to, x.columns, x.width, x.made,
                      x.made.at(share.batch, share.key_head * x.copies + copy, 0));
        }
    }
    const auto plain = [&](float* made, long length) {
        const long first = (static_cast<long>(share.batch) * d.h + share.key_head * d.group()) * length;
        for (long c = 0; c < d.group() * length; ++c) {
            float total = sums[0][c];
            for (int s = 1; s < count; ++s) total += sums[s][c];
            made[first + c] = total;
        }
    };
    if (piece == 0 && g.relative) {
        each([](const Sums& x) { return x.relative; });
        plain(g.relative, d.n + d.m - 1);
    }
    if (piece == 0 && g.column_sums) {
        each([](const Sums& x) { return x.columns; });
        plain(g.column_sums, d.m);
    }
}

}  // namespace
}  // namespace sightline
