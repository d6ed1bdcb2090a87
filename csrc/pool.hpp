// Threads that wait, without spinning, for numbered tasks. Several callers may run jobs at once.
#pragma once

#include <functional>

namespace sightline {

// Run task(0) ... task(tasks - 1) on up to `threads` threads, the caller's among them, and wait until all are done.
// Tasks start in order; each runs on one thread. The first exception is thrown again here.
void run_tasks(long tasks, int threads, const std::function<void(long)>& task);

}  // namespace sightline
