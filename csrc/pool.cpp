#include "pool.hpp"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

namespace sightline {
namespace {

struct Job {
    const std::function<void(long)>* task;
    long tasks;
    std::atomic<long> next{0};
    int wanted = 0;   // helpers that may still join
    int helping = 0;  // helpers at work
    std::exception_ptr error;
    std::condition_variable left;
};

class Pool {
  public:
    void run(long tasks, int helpers, const std::function<void(long)>& task) {
        Job job;
        job.task = &task;
        job.tasks = tasks;
        {
            std::lock_guard lock(mutex_);
            job.wanted = helpers;
            jobs_.push_back(&job);
            for (; threads_ < helpers; ++threads_) std::thread([this] { help(); }).detach();
        }
        if (helpers == 1) arrived_.notify_one();
        else arrived_.notify_all();
        work(job);
        std::unique_lock lock(mutex_);
        withdraw(job);
        job.left.wait(lock, [&] { return job.helping == 0; });
        if (job.error) std::rethrow_exception(job.error);
    }

  private:
    void work(Job& job) {
        for (long at; (at = job.next.fetch_add(1)) < job.tasks;) {
            try {
                (*job.task)(at);
            } catch (...) {
                std::lock_guard lock(mutex_);
                if (!job.error) job.error = std::current_exception();
                job.next = job.tasks;
            }
        }
    }

    void withdraw(Job& job) {
        job.wanted = 0;
        for (auto at = jobs_.begin(); at != jobs_.end(); ++at) {
            if (*at == &job) {
                jobs_.erase(at);
                return;
            }
        }
    }

    void help() {
        std::unique_lock lock(mutex_);
        for (;;) {
            arrived_.wait(lock, [&] { return !jobs_.empty(); });
            Job& job = *jobs_.front();
            ++job.helping;
            if (--job.wanted == 0) withdraw(job);
            lock.unlock();
            work(job);
            lock.lock();
            if (--job.helping == 0) job.left.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable arrived_;
    std::deque<Job*> jobs_;  // those that want helpers
    int threads_ = 0;
};

// The pool of this process. A forked child has none of its parent's threads, so it gets a pool of its own; pools are
// never destroyed, for their threads may outlive static objects.
Pool& pool() {
    static std::mutex mutex;
    static Pool* current = nullptr;
    static pid_t owner = 0;
    std::lock_guard lock(mutex);
    if (owner != getpid()) {
        current = new Pool;
        owner = getpid();
    }
    return *current;
}

}  // namespace

void run_tasks(long tasks, int threads, const std::function<void(long)>& task) {
    long helpers = threads - 1 < tasks - 1 ? threads - 1 : tasks - 1;
    if (helpers > 0) return pool().run(tasks, static_cast<int>(helpers), task);
    for (long at = 0; at < tasks; ++at) task(at);
}

}  // namespace sightline
