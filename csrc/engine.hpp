// Evaluate a request on some threads with one instruction set's kernels.
#pragma once

#include "kernels.hpp"

namespace sightline {

void evaluate(const Request& request, const Kernels& kernels, int threads);

// The gradients of its results; request.lse is read.
void differentiate(const Gradients& gradients, const Kernels& kernels, int threads);

}  // namespace sightline
