// The process-wide pool of compute threads.
//
// Work is a range of independent tiles. How it is cut into tiles is the caller's and depends on shapes only; which thread takes which tile
// is decided by an atomic counter. That is what makes results independent of the number of threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace fovea {

class ThreadPool {
 public:
  // The pool lives as long as the process (never destroyed: worker threads may outlive static destructors).
  static ThreadPool& instance();

  // Number of threads that take tiles, the calling one included. Default: min(affinity, cgroup quota).
  int threads() const { return threads_.load(std::memory_order_relaxed); }
  void set_threads(int n);

  // Calls body(tile, thread) for tile in [0, tiles), thread in [0, threads()). The caller takes part. Not reentrant: a body must not call
  // run. Workers compute in the caller's floating-point mode (float_mode.h). Stops handing out tiles and throws Error(Aborted) once *cancel
  // becomes true; an exception of a body is rethrown here.
  template <class Body>
  void run(int64_t tiles, Body&& body, const std::atomic<bool>* cancel = nullptr) {
    using Raw = std::remove_reference_t<Body>;
    run_erased(
        tiles, [](void* ctx, int64_t tile, int thread) { (*static_cast<Raw*>(ctx))(tile, thread); },
        const_cast<void*>(static_cast<const void*>(&body)), cancel);
  }

  // The 64-byte aligned buffer of `thread` (as passed to a body; the caller of run is thread 0), at least `bytes` long: the same memory at
  // every call, with whatever was left in it, until a call asks for more than it has; that one moves it and drops its contents.
  void* scratch(int thread, size_t bytes);
  // Bytes held by all scratch buffers.
  int64_t scratch_bytes() const;

 private:
  using Invoke = void (*)(void* ctx, int64_t tile, int thread);
  void run_erased(int64_t tiles, Invoke invoke, void* ctx, const std::atomic<bool>* cancel);

  struct Impl;
  ThreadPool();
  Impl* impl_;
  std::atomic<int> threads_;
};

}  // namespace fovea
