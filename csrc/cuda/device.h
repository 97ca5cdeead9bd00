// One CUDA device: its context, queue, memory pool, kernels and transfers.
//
// The device's fovea::Stream ("queue") is a thread that issues work in order to the CUDA streams of its lanes (lanes.h). Memory is
// allocated on the calling thread, since operations need addresses at once, and freed by a queued task; both are ordered by the lane's CUDA
// stream, whose work begins after the allocation and ends before the free. A sticky error marks the device lost: every later call says so.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "core/device.h"
#include "core/stream.h"
#include "cuda/driver.h"
#include "cuda/lanes.h"
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
  void release(Storage* storage) override;
  fovea::Stream& stream() override { return queue_; }
  void when_done(WhenDone done) override;
  std::shared_ptr<fovea::Lane> open_lane() override { return lanes_.open(); }
  std::shared_ptr<fovea::Lane> default_lane() override { return lanes_.main(); }
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
  void download(void* to, const void* from, size_t bytes, WhenDone done);

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
  // Of the lane of the task that runs.
  CUstream cu_stream() const { return lanes_.current()->stream(); }
  Events& events() { return lanes_.current()->events(); }
  Lanes& lanes() { return lanes_; }
  CUcontext context() const { return context_; }
  ModuleCache& modules() { return modules_; }
  Stream launcher() { return Stream(*this); }

  // Kernels issued and not known to have finished, for error messages.
  void note_launch(const char* kernel);
  uint64_t launches() const { return launches_.load(std::memory_order_acquire); }

 private:
  struct Opened {
    DeviceInfo info;
    CUdevice device;
    CUcontext context;
    CUmemoryPool pool;
  };
  static Opened open(int ordinal);
  explicit Device(const Opened& opened);
  // The last step of construction: the default lane, and the queue.
  fovea::Stream& start();
  std::string unfinished_kernels();
  // Null when the pool is exhausted.
  void* try_allocate(size_t bytes, CUstream stream);
  void* allocate_in(size_t bytes, CUstream stream, bool wait_for_queue);
  void note_release(size_t bytes);
  // In a task: done(error) once all lanes have finished what was issued so far.
  void after_issued(const WhenDone& done);
  [[noreturn]] void out_of_memory(size_t bytes);

  const DeviceInfo info_;
  const CUcontext context_;
  const CUmemoryPool pool_;

  std::atomic<int64_t> live_bytes_{0}, live_blocks_{0}, peak_bytes_{0};

  mutable std::mutex lost_mutex_;
  std::atomic<bool> is_lost_{false};
  std::shared_ptr<const Error> lost_;

  static constexpr int kRemembered = 8;
  std::mutex launches_mutex_;
  struct Launch {
    const char* kernel;
    std::weak_ptr<const Lane> lane;
  };
  Launch recent_[kRemembered] = {};
  std::atomic<uint64_t> launches_{0};

  ModuleCache modules_;
  Staging staging_;
  Lanes lanes_;
  fovea::Stream& queue_;
};

}  // namespace fovea::cuda
