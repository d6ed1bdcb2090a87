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
#include "../../csrc/isa.hpp"

using namespace sightline;

namespace {

struct Sizes {
    int n, m, d, dv;
    bool causal;
};

View view(const float* data, int rows, int width) {
    View v;
    v.data = data;
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

void check(const Kernels& kernels, const Sizes& z, int threads) {
    const int heads = 2, n = z.n, m = z.m, d = z.d, c = z.dv;
    std::mt19937 random(static_cast<unsigned>(n * m + d));
    std::normal_distribution<float> normal;
    std::vector<float> q(heads * n * d), k(m * d), v(m * c), out(heads * n * c), lse(heads * n), h(heads * n),
        got(heads * m);
    std::vector<int64_t> top(heads * n * 3);
    for (std::vector<float>* t : {&q, &k, &v}) std::generate(t->begin(), t->end(), [&] { return normal(random); });
    std::vector<int> lo(n, 0), hi(n);
    for (int i = 0; i < n; ++i) hi[i] = z.causal ? std::max(0, std::min(m, i + 1 + m - n)) : m;
    Request r;
    r.dims = {1, heads, 1, n, m, d};
    r.q = view(q.data(), n, d);
    r.k = view(k.data(), m, d);
    r.scores.scale = static_cast<float>(1 / std::sqrt(d));
    r.scores.lo.data = lo.data();
    r.scores.hi.data = hi.data();
    r.scores.lo.stride[2] = r.scores.hi.stride[2] = 1;
    r.lse = lse.data();
    r.observations = {{What::moment, view(v.data(), m, c), c, 0, 0, out.data(), nullptr, Kind::f32},
                      {What::entropy, {}, 0, 0, 0, h.data(), nullptr, Kind::f32},
                      {What::top, {}, 3, 0, 0, top.data(), nullptr, Kind::i64},
                      {What::received, {}, 0, 0, 0, got.data(), nullptr, Kind::f32}};
    evaluate(r, kernels, threads);
    const std::string name = std::string(kernels.name) + " n=" + std::to_string(n) + " m=" + std::to_string(m);
    for (int head = 0; head < heads; ++head) {
        std::vector<double> received(m);
        for (int i = 0; i < n; ++i) {
            const int row = head * n + i;
            std::vector<double> s(hi[i]), o(c);
            double largest = -INFINITY, total = 0, entropy = 0;
            for (int j = 0; j < hi[i]; ++j) {
                for (int x = 0; x < d; ++x) s[j] += double{q[row * d + x]} * k[j * d + x] * r.scores.scale;
                largest = std::max(largest, s[j]);
            }
            for (double x : s) total += std::exp(x - largest);
            for (int j = 0; j < hi[i]; ++j) {
                const double p = std::exp(s[j] - largest) / total;
                for (int x = 0; x < c; ++x) o[x] += p * v[j * c + x];
                entropy -= p * std::log(p);
                received[j] += p;
            }
            for (int x = 0; x < c; ++x) expect(name + " output", out[row * c + x], o[x], 1e-5);
            expect(name + " entropy", h[row], entropy, 2e-5);
            if (hi[i]) expect(name + " lse", lse[row], largest + std::log(total), 1e-5);
            if (hi[i]) expect(name + " top", s[top[row * 3]], largest, 1e-5);
            else expect(name + " top", static_cast<double>(top[row * 3]), -1, 0);
        }
        for (int j = 0; j < m; ++j)
            expect(name + " received", got[head * m + j], received[j], 1e-5 * (1 + received[j]));
    }
}

void check_all(const Kernels& kernels) {
    for (const Sizes& z : {Sizes{1, 1, 1, 1, false}, Sizes{70, 300, 40, 17, true}, Sizes{130, 130, 64, 64, true},
                           Sizes{2, 4100, 16, 8, false}, Sizes{100, 37, 5, 3, true}})
        for (int threads : {1, 3}) check(kernels, z, threads);
}

}  // namespace

int main() {
    for (const Kernels* kernels : usable()) {
        check_all(*kernels);
        std::vector<std::thread> callers;
        for (int i = 0; i < 8; ++i) callers.emplace_back(check_all, std::cref(*kernels));
        for (std::thread& caller : callers) caller.join();
        std::printf("%s: checked\n", kernels->name);
    }
    return failures ? 1 : 0;
}
