// Gradients on some threads: key heads by waves, each head's rows cut into shares, each share's rows into bands.
#include <algorithm>

#include "engine.hpp"
#include "forms.hpp"
#include "plan.hpp"
#include "pool.hpp"

namespace sightline {
namespace {

constexpr long kShares = 32;      // tasks that are enough
constexpr long kShareRows = 768;  // fewest rows of a share: each adds up its own sums over all keys
constexpr std::size_t kSumsBudget = std::size_t{32} << 20;   // bytes of one key head's sums before its shares are fewer
constexpr std::size_t kWaveBudget = std::size_t{256} << 20;  // bytes of packed keys and sums before heads take turns
constexpr int kStripBlocks = 2;                              // blocks of a band that keeps strips
constexpr std::size_t kStripCache = std::size_t{1} << 20;    // bytes of strips that stay in the second cache
constexpr int kPackKeys = 2048;                              // keys that one task packs; whole tiles

long ceil_div(long a, long b) { return (a + b - 1) / b; }

// Whether results tell the offsets: each that has a gradient is there and linear in its row's weights.
bool offsets_known(const Gradients& g) {
    const std::vector<Observation>& all = g.request->observations;
    for (std::size_t i = 0; i < all.size(); ++i) {
        const What what = all[i].what;
        const bool linear = what == What::moment || what == What::segment_mass || what == What::entries;
        if (g.of[i] && !(linear && all[i].out && all[i].out_kind == Kind::f32)) return false;
    }
    return true;
}

// How rows become bands, and bands shares. It depends on sizes and scores alone, so that sums are the same on any
// number of threads.
struct Cut {
    int blocks = kBand;
    Offsets offsets = Offsets::known;
    bool alone = true;
    long shares = 1, bands = 0;  // of one key head; bands are counted head by head
    std::size_t packed, sums, scratch;

    Cut(const Gradients& g, const BackwardKernels& k) {
        const Dims& d = g.request->dims;
        // Strips of more rows would leave the caches; tiles alone do not.
        const int most = static_cast<int>(std::min<long>(kBand, ceil_div(d.n, kBandRows)));
        blocks = std::min(most, kStripBlocks);
        const auto strips = [&](Offsets o) {
            return k.scratch_bytes(g, blocks, o) - k.scratch_bytes(g, blocks, Offsets::twice);
        };
        if (!offsets_known(g)) {
            offsets = k.remakes(g) && strips(Offsets::strips) > kStripCache ? Offsets::weights : Offsets::strips;
            if (strips(offsets) > g.strip_bytes) offsets = Offsets::twice;
        }
        if (offsets == Offsets::known || offsets == Offsets::twice) blocks = most;
        const long rows = static_cast<long>(d.n) * d.group();
        shares = std::min(ceil_div(kShares, static_cast<long>(d.b) * d.hk), rows / kShareRows);
        const std::size_t each = std::max<std::size_t>(k.sums_bytes(g, false), 1);
        shares = std::max(1L, std::min({shares, static_cast<long>(kSumsBudget / each), long{kMostShares}}));
        // Heads that share a dense bias's gradient must follow one another.
        if (g.additive && g.additive.stride[1] == 0 && d.group() > 1) shares = 1;
        while (shares & (shares - 1)) shares &= shares - 1;  // a power of two, which most numbers of threads divide
        alone = shares == 1;
        bands = ceil_div(d.n, static_cast<long>(blocks) * kBandRows) * d.group();
        packed = static_cast<std::size_t>(up(static_cast<long>(k.packed_bytes(g)), 64));
        sums = static_cast<std::size_t>(up(static_cast<long>(k.sums_bytes(g, alone)), 64));
        scratch = k.scratch_bytes(g, blocks, offsets);
    }
};

// Band number `at` of a key head as blocks; how many keys its rows span.
long place_band(const Gradients& g, const Cut& cut, int batch, int key_head, long at, std::vector<Block>& blocks) {
    const Request& r = *g.request;
    const long per_head = cut.bands / r.dims.group(), rows = static_cast<long>(cut.blocks) * kBandRows;
    const int head = key_head * r.dims.group() + static_cast<int>(at / per_head);
    const int first = static_cast<int>(at % per_head * rows);
    const int stop = static_cast<int>(std::min<long>(first + rows, r.dims.n));
    const Task task{batch, key_head, head, 1, 0, r.dims.n, 0, r.dims.m, {}};
    blocks.clear();
    long keys = 0;
    for (int i = first; i < stop; i += kBandRows) {
        Block& b = blocks.emplace_back();
        b.request = &r;
        b.batch = batch;
        b.key_head = key_head;
        place_rows(r, task, i, std::min(i + kBandRows, stop), b);
        keys += b.j1 - b.j0 + 1;
    }
    return keys;
}

// Where each share of a key head starts, in bands: all have about as many keys to do.
std::vector<long> starts(const Gradients& g, const Cut& cut, int batch, int key_head) {
    std::vector<long> cost(static_cast<std::size_t>(cut.bands) + 1), start{0};
    std::vector<Block> blocks;
    if (cut.shares > 1)
        for (long at = 0; at < cut.bands; ++at)
            cost[static_cast<std::size_t>(at) + 1] =
                cost[static_cast<std::size_t>(at)] + place_band(g, cut, batch, key_head, at, blocks);
    for (long share = 1; share < cut.shares; ++share) {
        const long wanted = cost.back() * share / cut.shares;
        start.push_back(std::lower_bound(cost.begin(), cost.end(), wanted) - cost.begin());
    }
    start.push_back(cut.bands);
    return start;
}

// Heads that may run side by side: those that share a dense bias's gradient follow one another.
long side_by_side(const Gradients& g) {
    const Dims& d = g.request->dims;
    if (!g.additive) return static_cast<long>(d.b) * d.hk;
    if (g.additive.stride[1] == 0 && d.hk > 1) return 1;
    return g.additive.stride[0] == 0 ? d.hk : static_cast<long>(d.b) * d.hk;
}

void differentiate_wave(const Gradients& g, const BackwardKernels& k, const Cut& cut, long first, long heads,
                        const Memory& memory, int threads) {
    const Dims& d = g.request->dims;
    std::vector<Share> shares;
    std::vector<std::vector<long>> start;
    const std::size_t each = cut.packed + cut.sums * static_cast<std::size_t>(cut.shares);
    for (long head = first; head < first + heads; ++head) {
        char* at = memory.data() + each * static_cast<std::size_t>(head - first);
        const int batch = static_cast<int>(head / d.hk), key_head = static_cast<int>(head % d.hk);
        start.push_back(starts(g, cut, batch, key_head));
        for (long s = 0; s < cut.shares; ++s)
            shares.push_back({&g, batch, key_head, cut.alone, cut.blocks, cut.offsets, at,
                              at + cut.packed + cut.sums * static_cast<std::size_t>(s), nullptr});
    }
    const long packs = ceil_div(d.m, kPackKeys);
    run_tasks(heads * packs, threads, [&](long at) {
        const Share& s = shares[static_cast<std::size_t>(at / packs * cut.shares)];
        const int j0 = static_cast<int>(at % packs * kPackKeys);
        k.pack(g, s.batch, s.key_head, j0, std::min(j0 + kPackKeys, d.m), const_cast<char*>(s.packed));
    });
    run_tasks(heads * cut.shares, threads, [&](long at) {
        Share s = shares[static_cast<std::size_t>(at)];
        const std::vector<long>& bands = start[static_cast<std::size_t>(at / cut.shares)];
        const Memory scratch(cut.scratch);
        std::vector<Block> blocks;
        s.scratch = scratch.data();
        k.start(s);
        const std::size_t own = static_cast<std::size_t>(at % cut.shares);
        for (long band = bands[own]; band < bands[own + 1]; ++band) {
            place_band(g, cut, s.batch, s.key_head, band, blocks);
            k.add(s, blocks.data(), static_cast<int>(blocks.size()));
        }
    });
    const int pieces = static_cast<int>(std::max(1L, std::min<long>(packs, 4L * threads / heads)));
    run_tasks(heads * pieces, threads, [&](long at) {
        k.join(&shares[static_cast<std::size_t>(at / pieces * cut.shares)], static_cast<int>(cut.shares),
               static_cast<int>(at % pieces), pieces);
    });
}

}  // namespace

void differentiate(const Gradients& given, const Kernels& kernels, int threads) {
    Request r = *given.request;
    Gradients g = given;
    g.request = &r;
    if (offsets_known(g)) choose_thirds(r, g, kernels, threads);
    const BackwardKernels& k = suited(kernels, !r.thirds && r.q.kind != Kind::bf16).backward;
    const Cut cut(g, k);
    const long heads = static_cast<long>(g.request->dims.b) * g.request->dims.hk;
    const std::size_t each = cut.packed + cut.sums * static_cast<std::size_t>(cut.shares);
    // As many as keep the threads busy: what was packed just now is in cache.
    const long busy = threads < 2 ? 1 : ceil_div(8L * threads, cut.shares);
    const long fit = std::max<long>(1, static_cast<long>(kWaveBudget / std::max<std::size_t>(each, 1)));
    const long beside = side_by_side(g), wave = std::min({heads, busy, fit, beside});
    const Memory memory(each * static_cast<std::size_t>(wave));
    for (long first = 0; first < heads;) {
        const long rest = beside < heads ? beside - first % beside : heads - first;  // never past those beside it
        const long some = std::min(wave, rest);
        differentiate_wave(g, k, cut, first, some, memory, threads);
        first += some;
    }
}

}  // namespace sightline
