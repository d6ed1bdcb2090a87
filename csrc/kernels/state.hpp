// The fold of a block's rows: where it lies, how it starts, how two merge. See sightline/partial.py for the algebra.
#pragma once

#include "../memory.hpp"
#include "exponential.hpp"
#include "score.hpp"
#include "top.hpp"

namespace sightline {
namespace {

// What a request folds besides references and masses.
struct Folds {
    bool slope = false, paired = false;
    bool floats = false;  // a moment reads weights as floats
    int top = 0;          // length of the lists of largest logits; a peak is the first of one
    long moments = 0;     // floats of a row, all moments together

    explicit Folds(const Request& r) {
        for (const Observation& o : r.observations) {
            slope |= o.what == What::entropy;
            if (o.what == What::peak && !top) top = 1;
            if (o.what == What::top && o.count > top) top = static_cast<int>(o.count);
            if (o.what == What::moment) {
                moments += up(o.count, kPanel);
                paired |= pairs(r, o);
                floats |= form(r, o) == Form::floats;
            }
        }
    }
};

State carve(const Request& r, Carver& at) {
    const Folds folds(r);

    State s;
    s.reference = at.take<float>(kRows + kLanes);
    s.mass = at.take<float>(kRows * kLanes);
    s.slope = at.take<float>(kRows * kLanes);
    s.moments = at.take<float>(static_cast<size_t>(kRows * folds.moments));
    s.top = at.take<float>(static_cast<size_t>(kRows * folds.top));
    s.top_keys = at.take<int>(static_cast<size_t>(kRows * folds.top));
    return s;
}

State state(const Request& r, char* memory) {
    Carver carver(memory);
    return carve(r, carver);
}

size_t state_bytes(const Request& r) {
    Carver carver(nullptr);
    carve(r, carver);
    return carver.used();
}

// No keys yet, of the block's rows and those looked at with them.
void start(const Block& b) {
    const State& s = b.state;
    const Folds folds(*b.request);
    const long rows = up(b.rows, kTogether);
    for (long i = 0; i < rows + kLanes; ++i) s.reference[i] = -INFINITY;
    for (long i = 0; i < rows * kLanes; ++i) s.mass[i] = s.slope[i] = 0;
    for (long i = 0; i < rows * folds.top; ++i) s.top[i] = -INFINITY, s.top_keys[i] = -1;
    float* into = s.moments;
    for (const Observation& o : b.request->observations) {
        if (o.what != What::moment) continue;
        const long columns = up(o.count, kPanel);
        for (long i = 0; i < rows * columns; ++i) into[i] = 0;
        into += kRows * columns;
    }
}

// Bring row i of a state to another reference: 2^d times everything linear; the slope is affine. unit: log2 e times
// what is left to scale references by.
INLINE float shift_row(State& s, int i, float reference, float unit) {
    const float old = s.reference[i];
    if (old == -INFINITY || old == reference) return 1;
    const float d = (old - reference) * unit, factor = std::exp2(d);
    const Floats mass = load(s.mass + i * kLanes), slope = load(s.slope + i * kLanes);
    store(s.slope + i * kLanes, factor * fma(mass, splat(d), slope));
    store(s.mass + i * kLanes, factor * mass);
    s.reference[i] = reference;
    return factor;
}

void merge(const Request& r, int rows, State& a, const State& given) {
    State b = given;
    const Folds folds(r);
    const float unit = remaining_scale(r) * kLog2e;
    for (int i = 0; i < rows; ++i) {
        if (b.reference[i] == -INFINITY) continue;
        const float reference = a.reference[i] > b.reference[i] ? a.reference[i] : b.reference[i];
        const float fa = shift_row(a, i, reference, unit), fb = shift_row(b, i, reference, unit);
        a.reference[i] = reference;
        store(a.mass + i * kLanes, load(a.mass + i * kLanes) + load(b.mass + i * kLanes));
        store(a.slope + i * kLanes, load(a.slope + i * kLanes) + load(b.slope + i * kLanes));
        long base = 0;
        for (const Observation& o : r.observations) {
            if (o.what != What::moment) continue;
            const long columns = up(o.count, kPanel);
            float *into = a.moments + base + i * columns, *from = b.moments + base + i * columns;
            for (long c = 0; c < columns; c += kLanes)
                store(into + c, fma(splat(fa), load(into + c), fb * load(from + c)));
            base += kRows * columns;
        }
        merge_top(a.top, a.top_keys, b.top, b.top_keys, i, folds.top);
    }
}

}  // namespace
}  // namespace sightline
