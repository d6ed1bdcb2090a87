#include "plan.hpp"

#include <algorithm>
#include <cstring>

#include "half.hpp"
#include "pool.hpp"

namespace sightline {
namespace {

constexpr std::size_t kStripBudget = std::size_t{64} << 20;  // bytes of one thread's strip before its rows become fewer
constexpr int kFewestRows = 12;
// Bytes of a strip that leave room for keys and values in the second cache, and rows that are enough for keys to be
// read seldom: fewer would not repay a strip that stays there.
constexpr std::size_t kStripCache = std::size_t{1} << 20;
constexpr int kStripRows = 64;
constexpr int kFewRows = 48;       // most rows that make one block with all of their keys
constexpr long kSplitKeys = 2048;  // fewest keys of a task, where tasks share rows
constexpr long kSplits = 32;       // tasks that are enough, where tasks share rows

long ceil_div(long a, long b) { return (a + b - 1) / b; }

// The cells of one head's result.
struct Cells {
    long rows, cols, each;
};

Cells cells(const Dims& d, const Observation& o) {
    switch (o.what) {
        case What::column_moment:
            return {1, d.m, o.count};
        case What::segment_mass:
            return {d.n, 1, o.count};
        case What::block_mass:
        case What::block_max:
            return {ceil_div(d.n, o.rows), ceil_div(d.m, o.cols), 1};
        default:
            return {1, d.m, 1};
    }
}

// The cells of it that a task touches.
Window touched(const Dims& d, const Task& t, const Observation& o) {
    const long keys = std::min<long>(t.j1, d.m) - t.j0;
    switch (o.what) {
        case What::column_moment:
            return {nullptr, 0, 1, t.j0, keys, o.count};
        case What::segment_mass:
            return {nullptr, t.i0, t.i1 - t.i0, 0, 1, o.count};
        case What::block_mass:
        case What::block_max: {
            const long row0 = t.i0 / o.rows, col0 = t.j0 / o.cols;
            return {nullptr, row0, ceil_div(t.i1, o.rows) - row0, col0, ceil_div(t.j0 + keys, o.cols) - col0, 1};
        }
        default:
            return {nullptr, 0, 1, t.j0, keys, 1};
    }
}

bool summed_up(const Observation& o) { return o.settled() && o.what != What::rows && o.what != What::entries; }

// Whether a task of few queries may sum straight into the result: it alone has those columns, in one row of cells.
bool alone(const Observation& o) {
    const bool columns = o.what == What::received || o.what == What::column_max || o.what == What::column_moment;
    return columns && o.out_kind == Kind::f32;
}

// Whether heads that share keys share every moment's operand too.
bool heads_share(const Request& r) {
    return std::all_of(r.observations.begin(), r.observations.end(), [&](const Observation& o) {
        return (o.what != What::moment && o.what != What::segment_mass) || o.operand.heads <= r.dims.hk;
    });
}

}  // namespace

Plan::Plan(const Request& r, const Kernels& kernels, int threads) : rows(kernels.rows) {
    for (const Observation& o : r.observations) strip |= o.settled();
    tiles = ceil_div(r.dims.m, kernels.tile);
    cut(r, kernels.tile, threads);
    place_windows(r);
}

void Plan::cut(const Request& r, int tile, int threads) {
    const Dims& d = r.dims;
    few = static_cast<long>(d.n) * d.group() <= kFewRows;
    if (few) {
        // The splits depend on sizes alone: what is observed must not change how sums are ordered.
        const int together = heads_share(r) ? d.group() : 1;
        rows = d.n * together;
        const long splits = std::max(1L, std::min(ceil_div(kSplits, 1L * d.b * d.hk), ceil_div(d.m, kSplitKeys)));
        const int keys = static_cast<int>(up(ceil_div(d.m, splits), tile));
        for (int b = 0; b < d.b; ++b)
            for (int h = 0; h < d.h; h += together)
                for (int j = 0; j < d.m; j += keys)
                    tasks.push_back({b, h / d.group(), h, together, 0, d.n, j, std::min(j + keys, d.m), {}});
        return;
    }
    const auto strip_bytes = [&](int rows) { return strip ? sizeof(float) * tiles * tile * rows : 0; };
    if (strip_bytes(rows) > kStripCache && strip_bytes(kStripRows) <= kStripCache) rows = std::min(rows, kStripRows);
    while (rows / 2 >= kFewestRows && strip_bytes(rows) > kStripBudget) rows /= 2;
    const long blocks = ceil_div(d.n, rows);
    // One thread needs no chunks; several take about eight each, so that none waits long for the last.
    const long chunks = threads < 2 ? 1 : std::min(blocks, ceil_div(8L * threads, static_cast<long>(d.b) * d.h));
    const int queries = static_cast<int>(ceil_div(blocks, chunks)) * rows;
    for (int b = 0; b < d.b; ++b)
        for (int h = 0; h < d.h; ++h)
            for (int i = 0; i < d.n; i += queries)
                tasks.push_back({b, h / d.group(), h, 1, i, std::min(i + queries, d.n), 0, d.m, {}});
}

void Plan::place_windows(const Request& r) {
    for (int pass = 0; pass < 2; ++pass) {
        Carver carver(pass ? window_memory.data() : nullptr);
        for (Task& t : tasks) {
            t.windows.assign(static_cast<std::size_t>(t.heads) * r.observations.size(), Window{});
            for (std::size_t at = 0; at < t.windows.size(); ++at) {
                const Observation& o = r.observations[at % r.observations.size()];
                if (!summed_up(o)) continue;
                Window& w = t.windows[at] = touched(r.dims, t, o);
                if (few && alone(o)) {
                    const long head =
                        static_cast<long>(t.batch) * r.dims.h + t.head0 + static_cast<long>(at / r.observations.size());
                    w.data = static_cast<float*>(o.out) + (head * r.dims.m + w.col0) * w.each;
                    continue;
                }
                w.data = carver.take<float>(static_cast<std::size_t>(w.rows * w.cols * w.each));
            }
        }
        if (!pass) window_memory = Memory(carver.used());
    }
    if (window_memory.data()) std::memset(window_memory.data(), 0, window_memory.size());
}

void Plan::clear(const Request& r, const Task& t) const {
    for (std::size_t at = 0; at < t.windows.size(); ++at) {
        const Window& w = t.windows[at];
        if (few && alone(r.observations[at % r.observations.size()]))
            std::memset(w.data, 0, sizeof(float) * static_cast<std::size_t>(w.rows * w.cols * w.each));
    }
}

namespace {

void join_window(const Window& w, const Cells& whole, bool maximum, float* out) {
    for (long row = 0; row < w.rows; ++row) {
        const float* from = w.data + row * w.cols * w.each;
        float* into = out + ((w.row0 + row) * whole.cols + w.col0) * whole.each;
        for (long c = 0; c < w.cols * w.each; ++c) into[c] = maximum ? std::max(into[c], from[c]) : into[c] + from[c];
    }
}

}  // namespace

void Plan::join(const Request& r, int threads) const {
    const Dims& d = r.dims;
    if (std::none_of(r.observations.begin(), r.observations.end(), summed_up)) return;
    run_tasks(static_cast<long>(d.b) * d.h, threads, [&](long head) {
        for (std::size_t at = 0; at < r.observations.size(); ++at) {
            const Observation& o = r.observations[at];
            if (!summed_up(o) || (few && alone(o))) continue;
            const Cells whole = cells(d, o);
            std::vector<float> sum(static_cast<std::size_t>(whole.rows * whole.cols * whole.each));
            for (const Task& t : tasks) {
                const long first = static_cast<long>(t.batch) * d.h + t.head0;
                if (head < first || head >= first + t.heads) continue;
                const std::size_t mine = static_cast<std::size_t>(head - first) * r.observations.size() + at;
                join_window(t.windows[mine], whole, o.maximum(), sum.data());
            }
            const long size = static_cast<long>(sum.size());
            for (long c = 0; c < size; ++c)
                put_element(o.out, o.out_kind, head * size + c, sum[static_cast<std::size_t>(c)]);
        }
    });
}

}  // namespace sightline
