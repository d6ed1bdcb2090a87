// Whether numbers are such that products of their parts neither overflow nor turn into none.
#pragma once

#include "request.hpp"

namespace sightline {

// Whether all of [batches, view.heads, rows, width] are finite and smaller than `limit`. On so many threads.
bool moderate(const View& view, int batches, long rows, long width, double limit, int threads);

}  // namespace sightline
