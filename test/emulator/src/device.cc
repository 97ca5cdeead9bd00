#include "device.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "emulator.h"

namespace fovea::emulator {

namespace {

struct State {
  std::mutex mutex;
  bool initialized = false;
  std::vector<std::unique_ptr<Device>> devices;
  std::string last_error, error_answer, report_answer;
  CUresult last_code = CUDA_SUCCESS;
  std::map<std::string, KernelCounters*> counters;
};

// Never destroyed: stream threads and the host's finalizers may come after static destruction.
State& state() {
  static State* s = new State;
  return *s;
}

thread_local CUcontext current_context = nullptr;

uint64_t number(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text && *text ? std::strtoull(text, nullptr, 10) : fallback;
}

void write_report() {
  const std::string path = environment("FOVEA_EMULATOR_REPORT", "");
  if (path.empty()) return;
  if (FILE* f = std::fopen(path.c_str(), "w")) {
    const std::string text = to_json(all_counters());
    std::fwrite(text.data(), 1, text.size(), f);
    std::fclose(f);
  }
}

Order order_of(const std::string& word, uint64_t& seed) {
  if (word == "last" || word == "reverse") return Order::Reverse;
  if (word.rfind("random", 0) != 0) return Order::Forward;
  if (word.size() > 7) seed = std::strtoull(word.c_str() + 7, nullptr, 10);
  return Order::Random;
}

// What launches of a kernel take in turn under the schedule `turns`.
struct Turn {
  const char *schedule, *async;
};
constexpr Turn kTurns[] = {{"first", "late"}, {"last", "early"}, {"random", "late"}, {"first", "early"}, {"last", "late"}};

}  // namespace

std::string environment(const char* name, const char* fallback) {
  const char* text = std::getenv(name);
  return text && *text ? text : fallback;
}

Options launch_options(uint64_t launch) {
  Options o;
  Turn turn{"first", "late"};
  std::string schedule = environment("FOVEA_EMULATOR_SCHEDULE", turn.schedule);
  if (schedule == "turns") {
    turn = kTurns[launch % std::size(kTurns)];
    schedule = turn.schedule, o.seed = launch + 1;
  }
  o.warps = order_of(schedule, o.seed);
  o.blocks = order_of(environment("FOVEA_EMULATOR_BLOCKS", schedule.c_str()), o.seed);
  o.async_early = environment("FOVEA_EMULATOR_ASYNC", turn.async) == "early";
  o.profile = profiling();
  o.threads = static_cast<int>(number("FOVEA_EMULATOR_THREADS", std::max(1u, std::thread::hardware_concurrency())));
  o.branch_limit = number("FOVEA_EMULATOR_BRANCH_LIMIT", 1ull << 28);
  return o;
}

bool profiling() { return !environment("FOVEA_EMULATOR_REPORT", "").empty() || !environment("FOVEA_EMULATOR_PROFILE", "").empty(); }

int capability() { return static_cast<int>(number("FOVEA_EMULATOR_CAPABILITY", 86)); }

bool initialized() { return state().initialized; }
int device_count() { return static_cast<int>(state().devices.size()); }
Device* device_at(int ordinal) {
  State& s = state();
  return ordinal >= 0 && ordinal < static_cast<int>(s.devices.size()) ? s.devices[ordinal].get() : nullptr;
}
Device* current_device() { return current_context ? current_context->device : nullptr; }

void set_last_error(CUresult code, const std::string& message) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.last_code = code;
  s.last_error = message;
}

std::string last_error() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  return s.last_error;
}

CUresult code_of(FaultKind kind) {
  switch (kind) {
    case FaultKind::OutOfBounds: return CUDA_ERROR_ILLEGAL_ADDRESS;
    case FaultKind::Misaligned: return CUDA_ERROR_MISALIGNED_ADDRESS;
    case FaultKind::Assert: return CUDA_ERROR_ASSERT;
    case FaultKind::Trap: return CUDA_ERROR_ILLEGAL_INSTRUCTION;
    case FaultKind::Timeout: return CUDA_ERROR_LAUNCH_TIMEOUT;
    default: return CUDA_ERROR_LAUNCH_FAILED;
  }
}

KernelCounters* counters_of(const std::string& kernel) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  KernelCounters*& k = s.counters[kernel];
  if (!k) k = new KernelCounters;
  return k;
}

std::map<std::string, KernelCounters*> all_counters() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  return s.counters;
}

void Device::fail(CUresult code, const std::string& message) {
  CUresult none = CUDA_SUCCESS;
  if (!sticky.compare_exchange_strong(none, code)) return;
  set_last_error(code, message);
  if (environment("FOVEA_EMULATOR_QUIET", "").empty()) std::fprintf(stderr, "fovea emulator: %s\n", message.c_str());
}

void Device::synchronize() {
  std::vector<std::shared_ptr<CUstream_st>> all;
  {
    const std::lock_guard lock(mutex);
    for (const auto& [address, s] : streams) all.push_back(s);
  }
  for (const auto& s : all) s->hurry();
  for (const auto& s : all) s->finish();
}

CUstream_st* Device::stream(CUstream s) {
  if (s) return s;
  const std::lock_guard lock(mutex);
  if (!default_stream) {
    auto made = std::make_shared<CUstream_st>(this);
    default_stream = made.get();
    streams.emplace(default_stream, std::move(made));
  }
  return default_stream;
}

std::shared_ptr<CUstream_st> Device::kept(CUstream_st* s) {
  const std::lock_guard lock(mutex);
  const auto found = streams.find(s);
  return found == streams.end() ? nullptr : found->second;
}

}  // namespace fovea::emulator

using namespace fovea::emulator;

CUresult cuInit(unsigned flags) {
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  State& s = state();
  const std::lock_guard lock(s.mutex);
  if (s.initialized) return CUDA_SUCCESS;
  const uint64_t count = number("FOVEA_EMULATOR_DEVICES", 1);
  if (count == 0) return CUDA_ERROR_NO_DEVICE;
  const uint64_t bytes = number("FOVEA_EMULATOR_MEMORY", 4ull << 30);
  for (uint64_t k = 0; k < count; ++k) s.devices.push_back(std::make_unique<Device>(static_cast<int>(k), bytes));
  s.initialized = true;
  std::atexit(write_report);
  return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int* version) {
  if (!version) return CUDA_ERROR_INVALID_VALUE;
  *version = static_cast<int>(number("FOVEA_EMULATOR_DRIVER_VERSION", 13000));
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice ordinal) {
  if (!initialized()) return CUDA_ERROR_NOT_INITIALIZED;
  Device* d = device_at(ordinal);
  if (!d) return CUDA_ERROR_INVALID_DEVICE;
  if (!context) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard lock(d->mutex);
  ++d->context.references;
  *context = &d->context;
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice ordinal) {
  Device* d = device_at(ordinal);
  if (!d) return CUDA_ERROR_INVALID_DEVICE;
  d->synchronize();
  d->sticky = CUDA_SUCCESS;
  return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
  if (!initialized()) return CUDA_ERROR_NOT_INITIALIZED;
  current_context = context;
  return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize() {
  FOVEA_CURRENT_DEVICE(d);
  d->synchronize();
  return d->sticky;
}

const char* foveaEmulatorLastError() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.error_answer = s.last_error;
  return s.error_answer.c_str();
}

const char* foveaEmulatorReport() {
  const std::string text = to_json(all_counters());
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.report_answer = text;
  return s.report_answer.c_str();
}

void foveaEmulatorResetReport() {
  for (const auto& [name, k] : all_counters()) {
    const std::lock_guard lock(k->mutex);
    k->launches = k->blocks = k->warp_instructions = k->lane_instructions = 0;
    std::fill(std::begin(k->by_class), std::end(k->by_class), 0);
    k->shared_loads = k->shared_stores = k->global_loads = k->global_stores = {};
  }
}

void foveaEmulatorLoseDevice(int device) {
  if (Device* d = device_at(device)) d->fail(CUDA_ERROR_LAUNCH_FAILED, "device " + std::to_string(device) + " was lost on request");
}

unsigned long long foveaEmulatorLiveAllocations(int device) {
  Device* d = device_at(device);
  if (!d) return 0;
  const std::lock_guard lock(d->mutex);
  return d->memory.allocations() - d->of_modules.size();
}

CUresult cuGetErrorString(CUresult error, const char** text) {
  if (!text) return CUDA_ERROR_INVALID_VALUE;
  {
    State& s = state();
    const std::lock_guard lock(s.mutex);
    if (error != CUDA_SUCCESS && error == s.last_code) {
      s.error_answer = s.last_error;
      *text = s.error_answer.c_str();
      return CUDA_SUCCESS;
    }
  }
  return cuGetErrorName(error, text);
}
