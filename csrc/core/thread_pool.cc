#include "core/thread_pool.h"

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "core/error.h"
#include "core/float_mode.h"
#include "core/red_zone.h"
#include "core/spin.h"
#include "core/system_memory.h"

namespace fovea {
namespace {

constexpr int kMaxThreads = 256;

// CPUs granted by a cgroup v2 quota, or 0 when there is none.
int cgroup_cpus() {
  std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r");
  if (!file) return 0;
  char quota[32];
  long period = 0;
  int fields = std::fscanf(file, "%31s %ld", quota, &period);
  std::fclose(file);
  if (fields != 2 || period <= 0 || std::strcmp(quota, "max") == 0) return 0;
  long cpus = (std::atol(quota) + period - 1) / period;
  return cpus < 1 ? 1 : static_cast<int>(cpus);
}

int default_threads() {
  int n = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
#endif
  if (int quota = cgroup_cpus(); quota > 0 && quota < n) n = quota;
  return n < 1 ? 1 : n > kMaxThreads ? kMaxThreads : n;
}

struct Scratch {
  void* data = nullptr;
  std::atomic<size_t> bytes{0};
};

}  // namespace

// A job is published by one atomic word, its number and its width together: workers whose index is below the width claim tiles until none
// is left and then check out. The others learn from the same word that the job is not theirs, and touch nothing of it.
struct ThreadPool::Impl {
  std::mutex run_mutex;  // one job at a time
  std::mutex park_mutex;
  std::condition_variable park;
  static constexpr uint64_t kWidthBits = 16;
  std::atomic<uint64_t> published{0};  // job number << kWidthBits | width
  std::atomic<int> busy{0};
  int started = 1;  // threads that exist, the caller counted

  Invoke invoke = nullptr;
  void* ctx = nullptr;
  unsigned float_mode = 0;  // of the caller
  int64_t tiles = 0;
  std::atomic<int64_t> next{0};
  const std::atomic<bool>* cancel = nullptr;
  std::atomic<bool> stop{false};
  std::mutex error_mutex;
  std::exception_ptr error;

  Scratch scratch[kMaxThreads];

  void work(int thread) {
    for (;;) {
      if (stop.load(std::memory_order_relaxed) || (cancel && cancel->load(std::memory_order_relaxed))) return;
      int64_t tile = next.fetch_add(1, std::memory_order_relaxed);
      if (tile >= tiles) return;
      try {
        invoke(ctx, tile, thread);
      } catch (...) {
        std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        stop.store(true, std::memory_order_relaxed);
      }
    }
  }

  void loop(int thread, uint64_t seen) {
    for (;;) {
      const auto has_news = [&] { return published.load(std::memory_order_acquire) != seen; };
      if (!spin_until(has_news, kPatience)) {
        std::unique_lock lock(park_mutex);
        park.wait(lock, has_news);
      }
      seen = published.load(std::memory_order_acquire);
      if (static_cast<uint64_t>(thread) < (seen & ((1u << kWidthBits) - 1))) {
        set_float_mode(float_mode);
        work(thread);
        busy.fetch_sub(1, std::memory_order_release);
      }
    }
  }
};

ThreadPool& ThreadPool::instance() {
  static ThreadPool* pool = new ThreadPool;
  return *pool;
}

ThreadPool::ThreadPool() : impl_(new Impl), threads_(default_threads()) {}

void ThreadPool::set_threads(int n) {
  check(n >= 1 && n <= kMaxThreads, "ERR_ARGUMENT", "setNumThreads: got ", n, ", expected 1 to ", kMaxThreads);
  threads_.store(n, std::memory_order_relaxed);
}

void ThreadPool::run_erased(int64_t tiles, Invoke invoke, void* ctx, const std::atomic<bool>* cancel) {
  if (tiles <= 0) return;
  Impl& job = *impl_;
  std::lock_guard lock(job.run_mutex);
  int width = threads();
  if (width > tiles) width = static_cast<int>(tiles);
  job.invoke = invoke;
  job.ctx = ctx;
  job.float_mode = fovea::float_mode();
  job.tiles = tiles;
  job.cancel = cancel;
  job.error = nullptr;
  job.stop.store(false, std::memory_order_relaxed);
  job.next.store(0, std::memory_order_relaxed);
  if (width > 1) {
    {
      std::lock_guard park_lock(job.park_mutex);
      job.busy.store(width - 1, std::memory_order_relaxed);
      uint64_t seen = job.published.load(std::memory_order_relaxed);
      for (; job.started < width; job.started++) std::thread([&job, id = job.started, seen] { job.loop(id, seen); }).detach();
      job.published.store((((seen >> Impl::kWidthBits) + 1) << Impl::kWidthBits) | static_cast<uint64_t>(width), std::memory_order_release);
    }
    job.park.notify_all();
  }
  job.work(0);
  if (width > 1) spin_until([&job] { return job.busy.load(std::memory_order_acquire) == 0; });
  if (job.error) std::rethrow_exception(std::exchange(job.error, nullptr));
  if (cancel && cancel->load(std::memory_order_relaxed)) fail("ERR_ABORTED", "the call was aborted by its signal");
}

void* ThreadPool::scratch(int thread, size_t bytes) {
  Scratch& s = impl_->scratch[thread];
  if (s.bytes.load(std::memory_order_relaxed) < bytes) {
    std::free(s.data);
    size_t size = (bytes + 4095) / 4096 * 4096;
    s.data = system_allocate(size);
    s.bytes.store(s.data ? size : 0, std::memory_order_relaxed);
    if (!s.data) fail("ERR_OOM", "out of memory: a kernel needs ", bytes, " bytes of scratch");
  }
  allow(s.data, bytes);
  forbid(static_cast<char*>(s.data) + bytes, s.bytes.load(std::memory_order_relaxed) - bytes);
  return s.data;
}

int64_t ThreadPool::scratch_bytes() const {
  int64_t sum = 0;
  for (const Scratch& s : impl_->scratch) sum += static_cast<int64_t>(s.bytes.load(std::memory_order_relaxed));
  return sum;
}

}  // namespace fovea
