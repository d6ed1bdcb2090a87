// The kernels against the formula in double precision, without Python: under sanitizers (`make sanitize`), and on other
// machines, emulated ones among them:
//   cmake -S . -B build/arm -DSIGHTLINE_MODULE=OFF -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
//         -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_EXE_LINKER_FLAGS=-static
//   cmake --build build/arm && qemu-aarch64 build/arm/check
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../../csrc/engine.hpp"
#include "../../csrc/half.hpp"
#include "../../csrc/isa.hpp"

using namespace sightline;

namespace {

constexpr int kHeads = 2;  // queries' heads, of one key head

struct Sizes {
    int n, m, d, dv;
    bool causal;
    Kind kind = Kind::f32;  // of q, k, v and the gradient of the output
};

View view(const void* data, int rows, int width, Kind kind = Kind::f32) {
    View v;
    v.data = data;
    v.kind = kind;
    v.stride[1] = static_cast<long>(rows) * width;
    v.stride[2] = width;
    v.stride[3] = 1;
    return v;
}

std::atomic<int> failures{0};

void expect(const std::string& where, double got, double want, double allowed) {
    if (std::fabs(got - want) <= allowed) return;
    if (++failures <= 10) std::printf("%s: %.9g, the formula says %.9g\n", where.c_str(), got, want);
}

// One call: what goes in, and room for what comes out.
struct Call {
    Sizes z;
    std::vector<float> q, k, v, g;          // queries, keys, values; the gradient of the output
    std::vector<uint16_t> halves[4];        // the same as bf16, where they are
    std::vector<float> out, lse, h, got;    // output, log-sum-exp, entropy, received
    std::vector<float> dq, dk, dv, offset;  // gradients
    std::vector<int64_t> top;
    std::vector<int> lo, hi;
    Request r;

    explicit Call(const Sizes& sizes) : z(sizes) {
        const int n = z.n, m = z.m, d = z.d, c = z.dv;
        std::mt19937 random(static_cast<unsigned>(n * m + d));
        std::normal_distribution<float> normal;
        const auto sized = [](std::vector<float>& t, int size) { t.resize(static_cast<size_t>(size)); };
        sized(q, kHeads * n * d), sized(k, m * d), sized(v, m * c), sized(g, kHeads * n * c);
        sized(out, kHeads * n * c), sized(lse, kHeads * n), sized(h, kHeads * n), sized(got, kHeads * m);
        sized(dq, kHeads * n * d), sized(dk, m * d), sized(dv, m * c), sized(offset, kHeads * n);
        top.resize(static_cast<size_t>(kHeads * n * 3));
        for (std::vector<float>* t : {&q, &k, &v, &g})
            std::generate(t->begin(), t->end(), [&] { return normal(random); });
        if (z.kind == Kind::bf16) {
            int at = 0;
            for (std::vector<float>* t : {&q, &k, &v, &g}) {
                for (float& x : *t) {
                    halves[at].push_back(to_bf16(x));
                    x = from_bf16(halves[at].back());
                }
                ++at;
            }
        }
        lo.assign(static_cast<size_t>(n), 0);
        for (int i = 0; i < n; ++i) hi.push_back(z.causal ? std::max(0, std::min(m, i + 1 + m - n)) : m);
        r.dims = {1, kHeads, 1, n, m, d};
        r.q = given(0, q, n, d);
        r.k = given(1, k, m, d);
        r.scores.scale = static_cast<float>(1 / std::sqrt(d));
        r.scores.lo.data = lo.data();
        r.scores.hi.data = hi.data();
        r.scores.lo.stride[2] = r.scores.hi.stride[2] = 1;
        r.lse = lse.data();
        r.observations = {{What::moment, given(2, v, m, c), c, 0, 0, out.data(), nullptr, Kind::f32},
                          {What::entropy, {}, 0, 0, 0, h.data(), nullptr, Kind::f32},
                          {What::top, {}, 3, 0, 0, top.data(), nullptr, Kind::i64},
                          {What::received, {}, 0, 0, 0, got.data(), nullptr, Kind::f32}};
    }

    View given(int which, const std::vector<float>& floats, int rows, int width) const {
        if (z.kind == Kind::bf16) return view(halves[which].data(), rows, width, Kind::bf16);
        return view(floats.data(), rows, width);
    }

    // What a result may be off by: weights, and gradients of logits, are rounded to bf16 where they multiply bf16.
    double allowed(double want, double floats) const {
        return z.kind == Kind::bf16 ? 5e-3 * (1 + std::fabs(want)) : floats;
    }

    void run(const Kernels& kernels, int threads) {
        evaluate(r, kernels, threads);
        const View of[4] = {given(3, g, z.n, z.dv), {}, {}, {}}, operands[4] = {view(dv.data(), z.m, z.dv), {}, {}, {}};
        Gradients made{};
        made.request = &r;
        made.of = of;
        made.operands = operands;
        made.q = view(dq.data(), z.n, z.d);
        made.k = view(dk.data(), z.m, z.d);
        made.offset = offset.data();
        made.strip_bytes = z.d % 2 ? 0 : size_t{1} << 20;  // with strips and without
        // The output tells the offsets, or is not there.
        if (z.dv % 2) r.observations[0].out = nullptr;
        differentiate(made, kernels, threads);
        r.observations[0].out = out.data();
    }
};

// The sums over all rows that keys gather, in double precision.
struct Gathered {
    std::vector<double> received, k, v;
};

void check_row(const std::string& name, const Call& call, int head, int i, Gathered& sums) {
    const Sizes& z = call.z;
    const int row = head * z.n + i, keys = call.hi[i];
    const double scale = call.r.scores.scale;
    std::vector<double> p(keys), towards(keys), o(z.dv), dq(z.d);
    double largest = -INFINITY, total = 0, entropy = 0, offset = 0;
    for (int j = 0; j < keys; ++j) {
        for (int x = 0; x < z.d; ++x) p[j] += double{call.q[row * z.d + x]} * call.k[j * z.d + x] * scale;
        for (int x = 0; x < z.dv; ++x) towards[j] += double{call.g[row * z.dv + x]} * call.v[j * z.dv + x];
        largest = std::max(largest, p[j]);
    }
    if (keys) expect(name + " top", p[call.top[row * 3]], largest, 1e-5);
    else expect(name + " top", static_cast<double>(call.top[row * 3]), -1, 0);
    for (double x : p) total += std::exp(x - largest);
    if (keys) expect(name + " lse", call.lse[row], largest + std::log(total), 1e-5);
    for (int j = 0; j < keys; ++j) {
        p[j] = std::exp(p[j] - largest) / total;
        offset += p[j] * towards[j];
        entropy -= p[j] * std::log(p[j]);
        sums.received[j] += p[j];
    }
    expect(name + " entropy", call.h[row], entropy, 2e-5);
    for (int j = 0; j < keys; ++j) {
        const double ds = p[j] * (towards[j] - offset) * scale;
        for (int x = 0; x < z.dv; ++x) {
            o[x] += p[j] * call.v[j * z.dv + x];
            sums.v[j * z.dv + x] += p[j] * call.g[row * z.dv + x];
        }
        for (int x = 0; x < z.d; ++x) {
            dq[x] += ds * call.k[j * z.d + x];
            sums.k[j * z.d + x] += ds * call.q[row * z.d + x];
        }
    }
    for (int x = 0; x < z.dv; ++x) expect(name + " output", call.out[row * z.dv + x], o[x], call.allowed(o[x], 1e-5));
    for (int x = 0; x < z.d; ++x)
        expect(name + " gradient of q", call.dq[row * z.d + x], dq[x], call.allowed(dq[x], 5e-5));
}

void check(const Kernels& kernels, const Sizes& z, int threads) {
    Call call(z);
    call.run(kernels, threads);
    const std::string name = std::string(kernels.name) + (z.kind == Kind::bf16 ? " bf16" : "") +
                             " n=" + std::to_string(z.n) + " m=" + std::to_string(z.m);
    Gathered sums;
    sums.k.resize(call.k.size());
    sums.v.resize(call.v.size());
    for (int head = 0; head < kHeads; ++head) {
        sums.received.assign(static_cast<size_t>(z.m), 0);
        for (int i = 0; i < z.n; ++i) check_row(name, call, head, i, sums);
        for (int j = 0; j < z.m; ++j) {
            const double want = sums.received[j];
            expect(name + " received", call.got[head * z.m + j], want, 1e-5 * (1 + want));
        }
    }
    for (size_t at = 0; at < sums.k.size(); ++at)
        expect(name + " gradient of k", call.dk[at], sums.k[at], call.allowed(sums.k[at], 1e-4));
    for (size_t at = 0; at < sums.v.size(); ++at)
        expect(name + " gradient of v", call.dv[at], sums.v[at], call.allowed(sums.v[at], 1e-4));
}

void check_all(const Kernels& kernels) {
    for (const Sizes& z : {Sizes{1, 1, 1, 1, false}, Sizes{70, 300, 40, 17, true}, Sizes{130, 130, 64, 64, true},
                           Sizes{2, 4100, 16, 8, false}, Sizes{100, 37, 5, 3, true},
                           Sizes{70, 300, 40, 17, true, Kind::bf16}, Sizes{130, 130, 64, 64, true, Kind::bf16},
                           Sizes{20, 700, 96, 33, false, Kind::bf16}, Sizes{60, 2600, 32, 17, true, Kind::bf16}})
        for (int threads : {1, 3}) check(kernels, z, threads);
}

// Whether exponentials are taken beside products changes no bit of a result, nor does observing more.
void check_overlap(const Kernels& kernels) {
    Kernels other = kernels;
    other.overlaps = !kernels.overlaps;
    for (Kind kind : {Kind::f32, Kind::bf16}) {
        for (bool causal : {false, true}) {
            Call observed({150, 900, 64, 64, causal, kind}), one(observed.z), two(observed.z);
            for (Call* call : {&one, &two}) call->r.observations.resize(1);  // the output
            evaluate(observed.r, kernels, 1);
            evaluate(one.r, kernels, 1);
            evaluate(two.r, other, 1);
            const bool same = one.out == two.out && one.lse == two.lse;
            if (same && one.out == observed.out && one.lse == observed.lse) continue;
            ++failures;
            std::printf("%s%s: another order of work, other bits\n", kernels.name, kind == Kind::bf16 ? " bf16" : "");
        }
    }
}

}  // namespace

int main() {
    for (const Kernels* kernels : usable()) {
        check_all(*kernels);
        check_overlap(*kernels);
        std::vector<std::thread> callers;
        for (int i = 0; i < 8; ++i) callers.emplace_back(check_all, std::cref(*kernels));
        for (std::thread& caller : callers) caller.join();
        std::printf("%s: checked\n", kernels->name);
    }
    return failures ? 1 : 0;
}
