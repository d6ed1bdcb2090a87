// Whether a call's floats are multiplied as sums of three bf16 numbers: see kernels/thirds.hpp.
#pragma once

#include "kernels.hpp"

namespace sightline {

// Sets `thirds` of a request and its moments, asking on so many threads: where the kernels can, many queries' floats
// are, unless some are huge or not finite, or all very small. What else is observed must not change how the output is
// made: every moment is asked about by itself.
void choose_thirds(Request& request, const Kernels& kernels, int threads);

// The same for gradients of one moment: all that its logits and the gradients of its weights are made of, or nothing.
void choose_thirds(Request& request, const Gradients& gradients, const Kernels& kernels, int threads);

}  // namespace sightline
