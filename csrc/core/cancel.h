// What stops the tasks of one abortable call, or of one JavaScript environment, and why.
#pragma once

#include <atomic>
#include <memory>
#include <utility>

namespace fovea {

class Cancel {
 public:
  // What kernels look at between tiles.
  const std::atomic<bool>& stopped() const { return stopped_; }

  // From one thread. The first cause stays; it may be null.
  void stop(std::shared_ptr<const void> cause) {
    if (stopped_.load(std::memory_order_relaxed)) return;
    cause_ = std::move(cause);
    stopped_.store(true, std::memory_order_release);
  }

  // Null before the stop.
  std::shared_ptr<const void> cause() const { return stopped_.load(std::memory_order_acquire) ? cause_ : nullptr; }

 private:
  std::atomic<bool> stopped_{false};
  std::shared_ptr<const void> cause_;
};

using CancelToken = std::shared_ptr<Cancel>;

}  // namespace fovea
