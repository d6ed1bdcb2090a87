#include "moderate.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "half.hpp"
#include "pool.hpp"

namespace sightline {
namespace {

constexpr long kPiece = 1024;  // rows of a task

template <class T, class Convert>
bool row_below(const T* x, long step, long width, float limit, Convert convert) {
    int beyond = 0;
    if (step == 1)
        for (long c = 0; c < width; ++c) beyond |= !(std::fabs(convert(x[c])) < limit);
    else
        for (long c = 0; c < width; ++c) beyond |= !(std::fabs(convert(x[c * step])) < limit);
    return !beyond;
}

bool row_below(const View& v, long at, long width, float limit) {
    const long step = v.stride[3];
    switch (v.kind) {
        case Kind::bf16:
            return row_below(static_cast<const uint16_t*>(v.data) + at, step, width, limit,
                             [](uint16_t x) { return from_bf16(x); });
        case Kind::f16:
            return row_below(static_cast<const uint16_t*>(v.data) + at, step, width, limit,
                             [](uint16_t x) { return from_f16(x); });
        case Kind::f64:
            return row_below(static_cast<const double*>(v.data) + at, step, width, limit,
                             [](double x) { return static_cast<float>(x); });
        default:
            return row_below(static_cast<const float*>(v.data) + at, step, width, limit, [](float x) { return x; });
    }
}

}  // namespace

bool moderate(const View& v, int batches, long rows, long width, double limit, int threads) {
    const long heads = v.stride[1] ? v.heads : 1, pieces = (rows + kPiece - 1) / kPiece;
    if (!v.stride[0]) batches = 1;
    std::atomic<bool> all{true};
    run_tasks(batches * heads * pieces, threads, [&](long at) {
        const long piece = at % pieces, head = at / pieces % heads, batch = at / pieces / heads;
        const long end = std::min(rows, (piece + 1) * kPiece);
        for (long i = piece * kPiece; i < end && all; ++i)
            if (!row_below(v, v.at(batch, head, i), width, static_cast<float>(limit))) all = false;
    });
    return all;
}

}  // namespace sightline
