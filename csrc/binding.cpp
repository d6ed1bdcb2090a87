// The Python module sightline._native: plain numbers in, kernels run without the interpreter's lock.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <stdexcept>
#include <string>

#include "engine.hpp"
#include "isa.hpp"

namespace nb = nanobind;
using namespace sightline;

namespace {

View view(std::uintptr_t data, int kind, std::array<long, 4> stride, int heads) {
    View v;
    v.data = reinterpret_cast<const void*>(data);
    v.kind = static_cast<Kind>(kind);
    for (int i = 0; i < 4; ++i) v.stride[i] = stride[static_cast<std::size_t>(i)];
    v.heads = heads;
    return v;
}

Observation observation(int what, const View& operand, std::array<long, 3> sizes, std::uintptr_t out,
                        std::uintptr_t out_keys, int out_kind) {
    Observation o{static_cast<What>(what), operand, sizes[0], sizes[1], sizes[2], nullptr, nullptr, Kind::f32};
    o.out = reinterpret_cast<void*>(out);
    o.out_keys = reinterpret_cast<void*>(out_keys);
    o.out_kind = static_cast<Kind>(out_kind);
    return o;
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Kernels* k : usable()) names.emplace_back(k->name);
    return names;
}

Request request(std::array<int, 6> dims, const View& q, const View& k, float scale, float softcap,
                const std::array<View, 6>& scores, const std::vector<Observation>& observations, std::uintptr_t lse,
                int part, const View& field_v, const View& grad_out, long width) {
    Request r;
    r.dims = {dims[0], dims[1], dims[2], dims[3], dims[4], dims[5]};
    r.q = q;
    r.k = k;
    r.scores = {scale, softcap, scores[0], scores[1], scores[2], scores[3], scores[4], scores[5]};
    r.observations = observations;
    r.lse = reinterpret_cast<float*>(lse);
    r.field = {static_cast<Part>(part), field_v, grad_out, width};
    return r;
}

const Kernels& chosen(const std::string& instructions) {
    for (const Kernels* kernels : usable())
        if (instructions.empty() || instructions == kernels->name) return *kernels;
    throw std::invalid_argument("this machine cannot run the instruction set " + instructions);
}

void forward(const Request& r, int threads, const std::string& instructions) {
    const Kernels& kernels = chosen(instructions);
    nb::gil_scoped_release unlocked;
    evaluate(r, kernels, threads);
}

// made: of q, k and, broadcast over what shares it, of a dense bias. sums: along diagonals, rows and columns of dS.
void backward(const Request& r, const std::vector<View>& of, const View& of_lse, const std::array<View, 3>& made,
              const std::vector<View>& operands, std::uintptr_t offset, const std::array<std::uintptr_t, 3>& sums,
              std::size_t strip_bytes, int threads, const std::string& instructions) {
    if (of.size() != r.observations.size() || operands.size() != of.size())
        throw std::invalid_argument("one gradient and one place for each observation are needed");
    const Kernels& kernels = chosen(instructions);
    const auto floats = [](std::uintptr_t at) { return reinterpret_cast<float*>(at); };
    const Gradients g{&r,
                      of.data(),
                      of_lse,
                      made[0],
                      made[1],
                      operands.data(),
                      floats(offset),
                      floats(sums[0]),
                      floats(sums[1]),
                      floats(sums[2]),
                      made[2],
                      strip_bytes};
    nb::gil_scoped_release unlocked;
    differentiate(g, kernels, threads);
}

}  // namespace

NB_MODULE(_native, m) {
    nb::class_<View>(m, "View").def(nb::new_([] { return View{}; })).def(nb::new_(&view));
    nb::class_<Observation>(m, "Observation").def(nb::new_(&observation));
    m.def("instruction_sets", &instruction_sets);
    nb::class_<Request>(m, "Request").def(nb::new_(&request));
    m.def("forward", &forward);
    m.def("backward", &backward);
}
