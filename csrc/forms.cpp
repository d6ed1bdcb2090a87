#include "forms.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "pool.hpp"

namespace sightline {
namespace {

constexpr long kBudget = 512L << 20;  // bytes of one head's keys, and values as wide, as thirds; floats are smaller
constexpr long kFewestRows = 128;     // that share keys: fewer do not repay packing thirds; and packed they must be
constexpr long kPiece = 2048;         // rows that one task looks at
// Sums of products of smaller numbers do not overflow; the least thirds of numbers as large are normal ones.
constexpr double kHuge = 0x1p55, kTiny = 0x1p-70;

uint32_t bits_of(double x) {
    const float f = static_cast<float>(x);
    uint32_t bits;
    std::memcpy(&bits, &f, sizeof bits);
    return bits;
}

// Whether the largest of [batches, view.heads, rows, width], times `factor`, is 0 or neither tiny nor huge.
bool moderate(const Kernels& k, const View& v, int batches, long rows, long width, double factor, int threads) {
    const long heads = v.stride[1] ? v.heads : 1, pieces = (rows + kPiece - 1) / kPiece;
    if (!v.stride[0]) batches = 1;
    const uint32_t huge = bits_of(kHuge / factor);
    std::atomic<uint32_t> most{0};
    run_tasks(batches * heads * pieces, threads, [&](long at) {
        const long piece = at % pieces, head = at / pieces % heads, batch = at / pieces / heads;
        const uint32_t mine = k.largest(v, static_cast<int>(batch), static_cast<int>(head), piece * kPiece,
                                        std::min(rows, (piece + 1) * kPiece), width);
        for (uint32_t before = most; before < mine && !most.compare_exchange_weak(before, mine);) continue;
    });
    return most == 0 || (most < huge && most >= bits_of(kTiny));
}

}  // namespace

void choose_thirds(Request& r, const Kernels& k, int threads) {
    const Dims& d = r.dims;
    const double scale = std::max(1.0, std::fabs(static_cast<double>(r.scores.scale)));
    const long packed = 2 * 3 * 2 * d.m * up(d.d, k.panel);
    r.thirds = k.thirds && r.q.kind != Kind::bf16 && 1L * d.n * d.group() >= kFewestRows && packed <= kBudget &&
               moderate(k, r.q, d.b, d.n, d.d, scale, threads) && moderate(k, r.k, d.b, d.m, d.d, 1, threads);
    for (Observation& o : r.observations)
        o.thirds = r.thirds && o.what == What::moment && moderate(k, o.operand, d.b, d.m, o.count, 1, threads);
}

void choose_thirds(Request& r, const Gradients& g, const Kernels& k, int threads) {
    if (r.dims.n < kBandRows) return;  // a band's rows are of one head
    choose_thirds(r, k, threads);
    int flowing = 0;
    for (std::size_t i = 0; i < r.observations.size(); ++i) {
        const Observation& o = r.observations[i];
        if (!r.thirds || !g.of[i]) continue;
        r.thirds = ++flowing == 1 && o.thirds && moderate(k, g.of[i], r.dims.b, r.dims.n, o.count, 1, threads);
    }
    r.thirds &= flowing == 1;
    for (Observation& o : r.observations) o.thirds &= r.thirds;
}

}  // namespace sightline
