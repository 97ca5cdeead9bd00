// Lanes: what JavaScript calls a Stream.
//
// A device has one queue (stream.h), whose thread takes tasks in the order they were queued. Each task belongs to a lane. A CUDA device
// runs the work of one lane in order and lets that of different lanes overlap, but for what storages and waits order (cuda/lanes.h). The
// CPU runs each kernel on all its threads, so its lanes keep the order of the queue. No lane (null) stands for the device's default.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/device.h"

namespace fovea {

// A point of a lane that others wait for.
class LaneEvent {
 public:
  explicit LaneEvent(Device device) : device(device) {}
  virtual ~LaneEvent();
  // The device has got there, or never will.
  void arrive(std::shared_ptr<const Error> error);
  // Calls done(error) on some thread once arrived.
  void when_done(WhenDone done);

  const Device device;

 private:
  std::mutex mutex_;
  bool arrived_ = false;
  std::shared_ptr<const Error> error_;
  std::vector<WhenDone> waiting_;
};

class Lane : public std::enable_shared_from_this<Lane> {
 public:
  Lane(Device device, bool is_default) : device(device), is_default(is_default) {}
  virtual ~Lane();
  // The default one of a device opens with it and never closes.
  static std::shared_ptr<Lane> open(Device device);
  static std::shared_ptr<Lane> default_of(Device device);
  // What is queued on the default lane from now on runs behind what this lane holds; nothing may be queued here any more.
  virtual void close() = 0;

  virtual std::shared_ptr<LaneEvent> record() = 0;
  // What is queued here from now on runs after the event, which is of the same device.
  virtual void wait(std::shared_ptr<LaneEvent> event) = 0;
  // Calls done(error) once all that is queued here now has run; the error may be that of a skipped in-place task (Stream::take_error).
  virtual void when_done(WhenDone done) = 0;

  // The lane of what the calling thread queues on a device; null for the default.
  static const std::shared_ptr<Lane>& current(Device device);
  // Returns the one before.
  static std::shared_ptr<Lane> set_current(Device device, std::shared_ptr<Lane> lane);

  const Device device;
  const bool is_default;
};

class LanePoint;

// What a device's lanes know of a storage; for the thread of its queue alone, but for `home`, which never changes.
struct LaneUses {
  std::shared_ptr<Lane> home;  // where the memory was allocated; null for the default
  std::shared_ptr<LanePoint> written;
  std::vector<std::shared_ptr<LanePoint>> read;  // since then
};

}  // namespace fovea
