// The instruction sets this library was compiled for, and those that this machine has.
#pragma once

#include <vector>

#include "kernels.hpp"

namespace sightline {

// Those that run here, best first. Never empty: the generic ones run everywhere.
const std::vector<const Kernels*>& usable();

}  // namespace sightline
