// One CUDA device: its context, stream, memory pool, kernels and transfers.
//
// The device's fovea::Stream ("queue") is a thread that issues work in order to one CUDA stream. Memory is allocated on the calling thread,
// since operations need addresses at once, and freed by a queued task; both are ordered by the CUDA stream, whose work begins after the
// allocation and ends before the free. A sticky error marks the device lost: every later call says so.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "core/device.h"
#include "core/stream.h"
#include "cuda/driver.h"
#include "cuda/events.h"
#include "cuda/launch.h"
#include "cuda/module_cache.h"
#include "cuda/staging.h"

namespace fovea::cuda {

// What devices() tells of one.
struct DeviceStatus {
  bool available;
  std::string detail;
};

class Device final : public DeviceBackend {
 public:
  // Opens it on first use; throws ERR_DEVICE with the reason.
  static Device& get(int ordinal);
  // Null when nobody has used it.
  static Device* opened(int ordinal);
  // Without opening it.
  static DeviceStatus status(int ordinal);

  void* allocate(size_t bytes) override;
  void release(void* data, size_t bytes) override;
  fovea::Stream& stream() override { return queue_; }
  void when_done(std::function<void(std::shared_ptr<const Error>)> done) override;
  fovea::Device device() const override { return {static_cast<int8_t>(info_.ordinal)}; }
  DeviceMemory memory() const override;
  void trim() override;
  void reset_peak() override { peak_bytes_ = live_bytes_.load(); }

  // The rest is for tasks on the queue.
  void* allocate_now(size_t bytes);
  void release_now(void* data, size_t bytes);
  // Whole copies in stream order, by way of pinned memory. `from` is read before upload() returns.
  void upload(void* to, const void* from, size_t bytes);
  // done(error) is called once `to` is written or can't be.
  void download(void* to, const void* from, size_t bytes, std::function<void(std::shared_ptr<const Error>)> done);

  // Makes the device's context the calling thread's.
  void enter() const;
  // Throws for a failed driver call: ERR_OOM, ERR_DEVICE when the device is lost by it, else ERR_INTERNAL. `what` begins the message.
  void expect(CUresult result, const std::string& what);
  // Throws when the device is lost.
  void check_alive() const;
  std::shared_ptr<const Error> lost() const;
  // Remembers a sticky result; returns the error that every later call gives.
  std::shared_ptr<const Error> lose(CUresult result, const std::string& what);

  const DeviceInfo& info() const { return info_; }
  CUstream cu_stream() const { return stream_; }
  CUcontext context() const { return context_; }
  ModuleCache& modules() { return modules_; }
  Events& events() { return events_; }
  Stream launcher() { return Stream(*this); }

  // Kernels issued and not known to have finished, for error messages.
  void note_launch(const char* kernel);
  uint64_t launches() const { return launches_.load(std::memory_order_acquire); }
  void note_finished(uint64_t launches);

 private:
  explicit Device(int ordinal);
  std::string unfinished_kernels();
  // Null when the pool is exhausted.
  void* try_allocate(size_t bytes);
  [[noreturn]] void out_of_memory(size_t bytes);

  DeviceInfo info_;
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  CUstream stream_ = nullptr;
  CUmemoryPool pool_ = nullptr;

  std::atomic<int64_t> live_bytes_{0}, live_blocks_{0}, peak_bytes_{0};

  mutable std::mutex lost_mutex_;
  std::atomic<bool> is_lost_{false};
  std::shared_ptr<const Error> lost_;

  static constexpr int kRemembered = 8;
  std::mutex launches_mutex_;
  const char* recent_[kRemembered] = {};
  std::atomic<uint64_t> launches_{0};
  std::atomic<uint64_t> finished_{0};

  ModuleCache modules_;
  Staging staging_;
  Events events_;
  fovea::Stream& queue_;
};

}  // namespace fovea::cuda
