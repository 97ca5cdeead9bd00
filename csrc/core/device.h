// Where a tensor's memory is, and what the core needs of a device that is not the CPU. csrc/cuda implements DeviceBackend; the core knows
// no more of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"

namespace fovea {

struct Device {
  int8_t ordinal = -1;  // of the CUDA device; -1 is the CPU

  static constexpr Device cpu() { return {}; }
  // The number used across the seam: 0 is the CPU, n + 1 is cuda:n. Throws ERR_DEVICE.
  static Device from_code(int64_t code);
  constexpr int code() const { return ordinal + 1; }
  constexpr bool is_cpu() const { return ordinal < 0; }
  constexpr bool operator==(const Device&) const = default;
};

// "cpu", "cuda:0"
std::string name_of(Device device);

using WhenDone = std::function<void(std::shared_ptr<const Error>)>;

// A callback that calls done(first error) when it is called for the count-th time, from any threads.
WhenDone after_all(size_t count, WhenDone done);

class Lane;
class Storage;
class Stream;

struct DeviceMemory {
  int64_t live_bytes, live_blocks, peak_live_bytes;
  int64_t cached_bytes;  // kept for reuse beyond live_bytes
  int64_t total_bytes;
};

class DeviceBackend {
 public:
  virtual ~DeviceBackend() = default;
  // Memory for what the calling thread queues from now on. Throws ERR_OOM after giving cached memory back and trying again, ERR_DEVICE on a
  // lost device.
  virtual void* allocate(size_t bytes) = 0;
  // Frees the storage's memory behind everything queued so far and drops a reference to it; from any thread.
  virtual void release(Storage* storage) = 0;
  // Its tasks issue work to the device; the device runs it later, in the same order.
  virtual Stream& stream() = 0;
  // Calls done(error) on some thread once the device has finished all that is queued now; error is null, or why it could not.
  virtual void when_done(WhenDone done) = 0;
  virtual std::shared_ptr<Lane> open_lane() = 0;
  virtual std::shared_ptr<Lane> default_lane() = 0;

  virtual Device device() const = 0;
  virtual DeviceMemory memory() const = 0;
  // Gives cached memory back once the device has passed the work queued so far.
  virtual void trim() = 0;
  virtual void reset_peak() = 0;
};

constexpr int kMaxDevices = 64;

// How core finds a backend; set once by csrc/cuda while the addon is loaded.
void set_backend_opener(DeviceBackend& (*open)(int ordinal));
// Opens the device on first use. Throws ERR_DEVICE with the reason when it is not there.
DeviceBackend& backend_of(Device device);
// Devices in use, by calling visit(backend) for each.
void note_opened(DeviceBackend& backend);
void visit_opened(const std::function<void(DeviceBackend&)>& visit);
std::vector<DeviceBackend*> opened_backends();
// Blocks until every opened device has finished all that is queued now, promises included; errors are left to those who wait for them.
void drain_devices();

}  // namespace fovea
