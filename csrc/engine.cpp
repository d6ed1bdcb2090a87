#include "engine.hpp"

#include <algorithm>

#include "forms.hpp"
#include "plan.hpp"
#include "pool.hpp"

namespace sightline {
namespace {

constexpr std::size_t kPackBudget = std::size_t{64} << 20;  // bytes of packed keys and values before heads take turns
constexpr int kPackKeys = 2048;                             // keys that one task packs; whole tiles

int bound(const View& v, int batch, int query) { return static_cast<const int*>(v.data)[v.at(batch, 0, query)]; }

}  // namespace

void place_rows(const Request& r, const Task& t, int i0, int i1, Block& b) {
    b.rows = 0;
    b.j0 = t.j1;
    b.j1 = t.j0;
    for (int head = t.head0; head < t.head0 + t.heads; ++head) {
        for (int i = i0; i < i1; ++i) {
            Row row{head, i, t.j0, t.j1};
            if (r.scores.lo) {
                row.lo = std::max(row.lo, bound(r.scores.lo, t.batch, i));
                row.hi = std::min(row.hi, bound(r.scores.hi, t.batch, i));
            }
            if (row.lo < row.hi) {
                b.j0 = std::min(b.j0, row.lo);
                b.j1 = std::max(b.j1, row.hi);
            }
            b.row[b.rows++] = row;
        }
    }
    if (b.j0 >= b.j1) b.j0 = b.j1 = t.j0;  // no keys at all
}

namespace {

// A thread's own memory: scratch, state, strip.
struct Workspace {
    Memory memory;
    Workspace(const Request& r, const Kernels& k, const Plan& plan, Block& b) {
        for (int pass = 0; pass < 2; ++pass) {
            Carver carver(memory.data());
            b.scratch = carver.take<char>(k.scratch_bytes(r));
            char* state = carver.take<char>(k.state_bytes(r));
            b.strip = b.strip_reference = nullptr;
            b.strip_rows = plan.rows;
            if (plan.strip) {
                b.strip = carver.take<float>(static_cast<std::size_t>(plan.tiles * plan.rows * k.tile));
                b.strip_reference = carver.take<float>(static_cast<std::size_t>(plan.tiles * plan.rows));
            }
            if (!pass) memory = Memory(carver.used());
            else b.state = k.state(r, state);
        }
    }
};

// The packed keys and values of some (batch, key head)s, first ... first + heads - 1 in their order.
class Packed {
  public:
    Packed(const Request& r, const Kernels& k) : r_(r), k_(k) {
        bytes_.push_back(k.key_bytes(r));
        owner_.push_back(nullptr);
        copies_.push_back(1);
        for (const Observation& o : r.observations) {
            if (o.what != What::moment) continue;
            owner_.push_back(&o);
            copies_.push_back(std::max(1, o.operand.heads / r.dims.hk));
            bytes_.push_back(k.value_bytes(r, o) * static_cast<std::size_t>(copies_.back()));
        }
        for (std::size_t b : bytes_) each_ += up(static_cast<long>(b), 64);
        field_ = each_;
        each_ += up(static_cast<long>(k.field_bytes(r)), 64);
    }

    long heads_at_once() const { return std::max<long>(1, static_cast<long>(kPackBudget) / each_); }

    void pack(long first, long heads, int threads) {
        first_ = first;
        if (memory_.size() < static_cast<std::size_t>(each_ * heads))
            memory_ = Memory(static_cast<std::size_t>(each_ * heads));
        const long pieces = (r_.dims.m + kPackKeys - 1) / kPackKeys;
        run_tasks(heads * pieces, threads, [&](long at) { pack_piece(first + at / pieces, at % pieces); });
    }

    const char* keys(long head) const { return memory_.data() + (head - first_) * each_; }

    const char* field(long head) const { return r_.field.part == Part::none ? nullptr : keys(head) + field_; }

    // The values of a moment for one query head.
    void values(long head, int query_head, std::vector<const char*>& out) const {
        const char* at = keys(head) + up(static_cast<long>(bytes_[0]), 64);
        for (std::size_t piece = 1; piece < bytes_.size(); ++piece) {
            const int copy = copies_[piece] == 1 ? 0 : heads_of(*owner_[piece], r_.dims, query_head) % copies_[piece];
            out[piece - 1] = at + static_cast<long>(bytes_[piece]) / copies_[piece] * copy;
            at += up(static_cast<long>(bytes_[piece]), 64);
        }
    }

  private:
    void pack_piece(long head, long piece) {
        const int batch = static_cast<int>(head / r_.dims.hk), key_head = static_cast<int>(head % r_.dims.hk);
        const int j0 = static_cast<int>(piece * kPackKeys), j1 = std::min(j0 + kPackKeys, r_.dims.m);
        char* at = memory_.data() + (head - first_) * each_;
        k_.pack_keys(r_, batch, key_head, j0, j1, at);
        if (r_.field.part != Part::none) k_.pack_field(r_, batch, key_head, j0, j1, at + field_);
        at += up(static_cast<long>(bytes_[0]), 64);
        for (std::size_t i = 1; i < bytes_.size(); ++i) {
            for (int copy = 0; copy < copies_[i]; ++copy) {
                const Observation& o = *owner_[i];
                const int from =
                    copies_[i] > 1 ? key_head * copies_[i] + copy : key_head * o.operand.heads / r_.dims.hk;
                k_.pack_values(r_, o, batch, from, j0, j1, at + static_cast<long>(bytes_[i]) / copies_[i] * copy);
            }
            at += up(static_cast<long>(bytes_[i]), 64);
        }
    }

    const Request& r_;
    const Kernels& k_;
    std::vector<const Observation*> owner_;
    std::vector<int> copies_;  // heads of the operand for one key head
    std::vector<std::size_t> bytes_;
    long each_ = 0, field_ = 0, first_ = 0;
    Memory memory_;
};

void sweep(const Kernels& k, const Block& b) {
    if (b.request->field.part != Part::none) k.weigh(b);
    k.sweep(b);
}

// Many queries: every block of a task's rows, against packed keys.
void run_task(const Request& r, const Kernels& k, const Plan& plan, const Packed& packed, const Task& t) {
    Block b{};
    const Workspace workspace(r, k, plan, b);
    const long head = static_cast<long>(t.batch) * r.dims.hk + t.key_head;
    std::vector<const char*> values(r.observations.size());
    packed.values(head, t.head0, values);
    b.request = &r;
    b.batch = t.batch;
    b.key_head = t.key_head;
    b.keys = packed.keys(head);
    b.values = values.data();
    b.field = packed.field(head);
    b.overlap = k.overlaps;
    b.first_head = t.head0;
    b.windows = t.windows.data();
    for (int i = t.i0; i < t.i1; i += plan.rows) {
        place_rows(r, t, i, std::min(i + plan.rows, t.i1), b);
        k.settle(b);
        k.finish(b);
        if (plan.strip) sweep(k, b);
    }
}

void run_many(const Request& r, const Kernels& k, const Plan& plan, int threads) {
    Packed packed(r, k);
    const long heads = static_cast<long>(r.dims.b) * r.dims.hk, wave = packed.heads_at_once();
    const long chunks = static_cast<long>(plan.tasks.size()) / (heads * r.dims.group());
    for (long first = 0; first < heads; first += wave) {
        const long some = std::min(wave, heads - first);
        packed.pack(first, some, threads);
        // The last chunk of every head first: under a causal mask they are the longest.
        const long together = some * r.dims.group();  // heads
        run_tasks(together * chunks, threads, [&](long at) {
            const long head = first * r.dims.group() + at % together, chunk = chunks - 1 - at / together;
            run_task(r, k, plan, packed, plan.tasks[static_cast<std::size_t>(head * chunks + chunk)]);
        });
    }
}

// Few queries: tasks that differ in their keys alone follow one another; their states merge before any row is finished.
void run_few(const Request& r, const Kernels& k, const Plan& plan, int threads) {
    const std::size_t count = plan.tasks.size();
    std::vector<Block> blocks(count);
    const std::size_t state = static_cast<std::size_t>(up(static_cast<long>(k.state_bytes(r)), 64));
    const Memory states(state * count);
    const long splits = std::count_if(plan.tasks.begin(), plan.tasks.end(), [&](const Task& t) {
        return t.batch == plan.tasks[0].batch && t.head0 == plan.tasks[0].head0;
    });
    const long groups = static_cast<long>(count) / splits;
    const std::size_t strip = static_cast<std::size_t>(plan.tiles * plan.rows * (k.tile + 1));
    const Memory strips(plan.strip ? sizeof(float) * strip * static_cast<std::size_t>(groups) : 0);
    for (std::size_t at = 0; at < count; ++at) {
        const Task& t = plan.tasks[at];
        Block& b = blocks[at];
        b.state = k.state(r, states.data() + state * at);
        b.request = &r;
        b.batch = t.batch;
        b.key_head = t.key_head;
        b.first_head = t.head0;
        b.windows = t.windows.data();
        b.strip_rows = plan.rows;
        if (plan.strip) {
            b.strip = strips.floats() + strip * (at / static_cast<std::size_t>(splits));
            b.strip_reference = b.strip + plan.tiles * plan.rows * k.tile;
        }
        place_rows(r, t, t.i0, t.i1, b);
    }
    run_tasks(static_cast<long>(count), threads, [&](long at) {
        const Memory scratch(k.scratch_bytes(r));
        blocks[static_cast<std::size_t>(at)].scratch = scratch.data();
        k.settle(blocks[static_cast<std::size_t>(at)]);
    });
    run_tasks(groups, threads, [&](long group) {
        Block* b = &blocks[static_cast<std::size_t>(group * splits)];
        for (long split = 1; split < splits; ++split) k.merge(r, b->rows, b->state, b[split].state);
        k.finish(*b);
        for (long split = 1; split < splits; ++split) {
            std::copy(b->reference, b->reference + b->rows, b[split].reference);
            std::copy(b->share, b->share + b->rows, b[split].share);
        }
    });
    if (!plan.strip) return;
    run_tasks(static_cast<long>(count), threads, [&](long at) {
        const Memory scratch(k.scratch_bytes(r));
        blocks[static_cast<std::size_t>(at)].scratch = scratch.data();
        plan.clear(r, plan.tasks[static_cast<std::size_t>(at)]);
        sweep(k, blocks[static_cast<std::size_t>(at)]);
    });
}

}  // namespace

void evaluate(const Request& given, const Kernels& set, int threads) {
    Request r = given;
    choose_thirds(r, set, threads);
    const bool floats = !r.thirds && r.q.kind != Kind::bf16;
    const Kernels& k = suited(set, floats || r.dims.n * r.dims.group() <= set.few);
    const Plan plan(r, k, threads);
    if (plan.few) run_few(r, k, plan, threads);
    else run_many(r, k, plan, threads);
    plan.join(r, threads);
}

}  // namespace sightline
