// How a request is cut into tasks, and where each sums up what crosses rows.
#pragma once

#include <vector>

#include "kernels.hpp"
#include "memory.hpp"

namespace sightline {

// Queries i0:i1 of heads head0 ... head0 + heads - 1, which share a key head, against keys j0:j1.
struct Task {
    int batch, key_head, head0, heads;
    int i0, i1, j0, j1;
    std::vector<Window> windows;  // [heads, observations]
};

// Rows of one block: queries i0:i1 of some heads, their intervals cut to keys j0:j1. Sets the keys that any row admits.
void place_rows(const Request& request, const Task& task, int i0, int i1, Block& block);

// Two ways to go. Many queries: keys and values are packed once per head, and a task takes some blocks of rows of one
// head over all keys. Few (a cache being decoded): the rows of all heads that share a key head make one block, a task
// takes some of the keys, packed as they come, so that each is read once, and the tasks' states merge.
struct Plan {
    bool few = false;    // which of the two
    int rows;            // of a block
    bool strip = false;  // whether weights are kept until they are settled
    long tiles = 0;      // tiles of keys
    std::vector<Task> tasks;
    Memory window_memory;

    Plan(const Request& request, const Kernels& kernels, int threads);

    // Zero the windows of a task of few queries that lie in the results themselves; before it sweeps.
    void clear(const Request& request, const Task& task) const;

    // Join the tasks' windows, in order, into the results.
    void join(const Request& request, int threads) const;

  private:
    void cut(const Request& request, int tile, int threads);
    void place_windows(const Request& request);
};

}  // namespace sightline
