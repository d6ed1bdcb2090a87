// What is taken off D before weights multiply it: of every row the sum of P D, less the gradient of its log-sum-exp.
#pragma once

#include "weights.hpp"

namespace sightline {
namespace {

// The row sum of P D from linear results: g_i . (P f)_i. Added up in the order of a product with values, so that dS is
// 0 where one key has all the weight.
INLINE float product_with_results(const Band& x, const Row& row) {
    const Request& r = *x.g.request;
    float total = 0;
    for (size_t i = 0; i < r.observations.size(); ++i) {
        const View& of = x.g.of[i];
        if (!of) continue;
        const long count = r.observations[i].count, first = of.at(x.share.batch, row.head, row.query);
        const float* result = static_cast<const float*>(r.observations[i].out) + cell(r, x.share.batch, row) * count;
        Floats own{};  // all lanes the same: products and sums are rounded as vectors' are
        for (long c = 0; c < count; ++c)
            own = fma(splat(element(of.data, of.kind, first + c * of.stride[3])), splat(result[c]), own);
        total += own[0];
    }
    return total;
}

// The same of all rows as thirds, as D is: the diagonals of products with panels of results.
INLINE void multiply_results(const Band& x) {
    const Moment& m = x.moments.list[0];
    const Dims& d = x.g.request->dims;
    View results;
    results.data = m.what->out;
    results.stride[0] = d.h * d.n * m.width, results.stride[1] = d.n * m.width;
    results.stride[2] = m.width, results.stride[3] = 1;
    const Row from = x.blocks[0].row[0];
    Nothing nothing;
    for (int row = 0; row < x.rows; row += kPairRows) {
        const int some = static_cast<int>(least(kPairRows, x.rows - row)), query = from.query + row;
        pack_thirds_across(results, static_cast<int>(m.width), x.share.batch, from.head, query, query + some,
                           x.at.results);
        multiply_row_thirds(x, x.at.moment[0].rows, row, m.depth(), reinterpret_cast<const Pair*>(x.at.results), kPanel,
                            x.at.tile, kPanel, nothing);
        for (int i = 0; i < some; ++i) x.at.offset[row + i] = x.at.tile[i * kPanel + i];
    }
}

// The offsets of a band: from results, or from its sums of P D once they are complete.
INLINE void settle_offsets(const Band& x) {
    if (x.third) multiply_results(x);
    for (int b = 0; b < x.count; ++b)
        for (int i = 0; i < x.blocks[b].rows; ++i) {
            const Row row = x.blocks[b].row[i];
            const View& of = x.g.of_lse;
            const float moved = of ? element(of.data, of.kind, of.at(x.share.batch, row.head, row.query)) : 0;
            float& offset = x.at.offset[b * kBandRows + i];
            if (!x.known) offset = sum(load(x.at.sums + (b * kBandRows + i) * kLanes));
            else if (!x.third) offset = product_with_results(x, row);
            x.g.offset[cell(*x.g.request, x.share.batch, row)] = offset -= moved;
        }
}

}  // namespace
}  // namespace sightline
