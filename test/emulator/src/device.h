// An emulated device with its primary context, streams, memory pool and error state; and what the environment says.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cuda/driver_api.h"
#include "fault.h"
#include "machine.h"

namespace fovea::emulator {
struct Device;
}

struct CUctx_st {
  fovea::emulator::Device* device;
  int references = 0;
};

struct CUmemPoolHandle_st {
  fovea::emulator::Device* device;
  uint64_t threshold = 0, used = 0, used_high = 0, reserved = 0, reserved_high = 0;
};

// Commands run in order on a thread of the stream's own. How soon is FOVEA_EMULATOR_STREAMS: `early`, before the call that enqueues
// returns; `late`, when somebody waits or asks, or a millisecond later; `thread` (default), whenever the thread gets to it.
struct CUstream_st {
  explicit CUstream_st(fovea::emulator::Device* d);
  ~CUstream_st();
  void submit(std::function<void()> command);
  void finish();  // waits until all commands so far are done
  bool idle();
  void hurry();  // someone is interested: late commands may run
  fovea::emulator::Device* device;

 private:
  void loop();
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::deque<std::function<void()>> commands_;
  uint64_t submitted_ = 0, completed_ = 0, hurried_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

struct CUevent_st {
  fovea::emulator::Device* device;
  std::mutex mutex;
  std::condition_variable done;
  uint64_t recorded = 0, completed = 0;
  double milliseconds = 0;
  std::shared_ptr<CUstream_st> stream;  // of the last record
};

namespace fovea::emulator {

struct Device {
  int ordinal;
  DeviceMemory memory;
  CUctx_st context{this};
  CUmemPoolHandle_st pool{this};
  std::mutex mutex;                                              // pool counters, streams, pooled
  std::map<CUstream_st*, std::shared_ptr<CUstream_st>> streams;  // those who wait for one keep it while another thread destroys it
  std::map<uint64_t, uint64_t> pooled;                           // address -> bytes of allocations from the pool
  std::set<uint64_t> of_modules;
  CUstream_st* default_stream = nullptr;
  std::atomic<CUresult> sticky{CUDA_SUCCESS};

  Device(int n, uint64_t bytes) : ordinal(n), memory(bytes) {}
  void fail(CUresult code, const std::string& message);
  void synchronize();
  CUstream_st* stream(CUstream s);
  std::shared_ptr<CUstream_st> kept(CUstream_st* s);
};

// The environment, read at every call so that a test may change it.
std::string environment(const char* name, const char* fallback);
// Of a kernel's launch with this number.
Options launch_options(uint64_t launch);
bool profiling();
int capability();  // 86, 90

bool initialized();
Device* device_at(int ordinal);
int device_count();
Device* current_device();  // of the thread's current context, or null
void set_last_error(CUresult code, const std::string& message);
std::string last_error();
CUresult code_of(FaultKind kind);

// Kernel counters by name; created on first use, never freed.
KernelCounters* counters_of(const std::string& kernel);
std::map<std::string, KernelCounters*> all_counters();

// Runs f unless the device is lost; turns a Fault into the device's sticky error.
template <class F>
void run_guarded(Device& device, F&& f) {
  if (device.sticky != CUDA_SUCCESS) return;
  try {
    f();
  } catch (const Fault& fault) {
    device.fail(code_of(fault.kind), fault.message);
  } catch (const std::exception& e) {
    device.fail(CUDA_ERROR_UNKNOWN, e.what());
  }
}

}  // namespace fovea::emulator

// First lines of most functions: a device in `device`, or an error returned.
#define FOVEA_CURRENT_DEVICE(device)                                      \
  fovea::emulator::Device* device = fovea::emulator::current_device();    \
  if (!fovea::emulator::initialized()) return CUDA_ERROR_NOT_INITIALIZED; \
  if (!device) return CUDA_ERROR_INVALID_CONTEXT;                         \
  if (device->sticky != CUDA_SUCCESS) return device->sticky
