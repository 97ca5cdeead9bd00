#include "cuda/device.h"

#include <algorithm>
#include <cstring>

#include "core/error_of.h"

namespace fovea::cuda {
namespace {

constexpr int kOldestCapability = 80;
constexpr int64_t kGrainBytes = 512;  // the pool's

std::atomic<Device*> devices[kMaxDevices] = {};
std::mutex open_mutex;

int64_t rounded(size_t bytes) { return (static_cast<int64_t>(bytes) + kGrainBytes - 1) / kGrainBytes * kGrainBytes; }

// Errors after which the context is of no use any more.
bool is_sticky(CUresult result) {
  const int code = result;
  return code == CUDA_ERROR_ILLEGAL_ADDRESS || code == CUDA_ERROR_LAUNCH_TIMEOUT || code == CUDA_ERROR_ASSERT ||
         (code >= 714 && code <= CUDA_ERROR_LAUNCH_FAILED) || code == CUDA_ERROR_UNKNOWN || code == CUDA_ERROR_DEINITIALIZED ||
         code == 709 || code == 214 || code == 220;  // the context is destroyed; an error of memory or NVLink that can't be corrected
}

int attribute(CUdevice device, CUdevice_attribute which) {
  int value = 0;
  driver().cuDeviceGetAttribute(&value, which, device);
  return value;
}

DeviceInfo info_of(int ordinal, CUdevice device) {
  const Driver& d = driver();
  char name[256] = "unknown";
  d.cuDeviceGetName(name, sizeof(name), device);
  DeviceInfo info{};
  info.ordinal = ordinal;
  info.name = name;
  info.capability = 10 * attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                    attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  info.multiprocessors = attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  info.max_threads_per_multiprocessor = attribute(device, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR);
  info.shared_bytes_per_block = static_cast<size_t>(attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN));
  info.shared_bytes_per_multiprocessor = static_cast<size_t>(attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR));
  d.cuDeviceTotalMem_v2(&info.total_bytes, device);
  return info;
}

// Why fovea can't use the device; empty when it can.
std::string problem_of(const DeviceInfo& info, CUdevice device) {
  if (info.capability < kOldestCapability)
    return info.name + " has compute capability " + std::to_string(info.capability / 10) + "." + std::to_string(info.capability % 10) +
           "; at least 8.0 (Ampere) is needed";
  if (!attribute(device, CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)) return info.name + " has no stream-ordered memory pools";
  return "";
}

}  // namespace

Device* Device::opened(int ordinal) {
  return ordinal >= 0 && ordinal < kMaxDevices ? devices[ordinal].load(std::memory_order_acquire) : nullptr;
}

Device& Device::get(int ordinal) {
  if (Device* device = opened(ordinal)) return *device;
  driver();
  const int count = driver_state().devices;
  check(ordinal >= 0 && ordinal < std::min(count, kMaxDevices), "ERR_DEVICE", "there is no device cuda:", ordinal, ": the driver sees ",
        count, count == 1 ? " device" : " devices", ", counted from 0");
  std::lock_guard lock(open_mutex);
  if (Device* device = opened(ordinal)) return *device;
  auto* device = new Device(open(ordinal));
  devices[ordinal].store(device, std::memory_order_release);
  note_opened(*device);
  return *device;
}

DeviceStatus Device::status(int ordinal) {
  if (Device* device = opened(ordinal))
    if (auto lost = device->lost()) return {false, lost->what()};
  CUdevice device = 0;
  driver().cuDeviceGet(&device, ordinal);
  const DeviceInfo info = info_of(ordinal, device);
  if (std::string problem = problem_of(info, device); !problem.empty()) return {false, problem};
  const int version = driver_state().version;
  return {true, info.name + ", compute capability " + std::to_string(info.capability / 10) + "." + std::to_string(info.capability % 10) +
                    ", " + std::to_string(info.multiprocessors) + " multiprocessors, " + std::to_string(info.total_bytes >> 20) +
                    " MiB; driver for CUDA " + std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10)};
}

Device::Opened Device::open(int ordinal) {
  const Driver& d = driver();
  const auto expect = [&](CUresult result) {
    check(result == CUDA_SUCCESS, "ERR_DEVICE", "opening cuda:", ordinal, ": ", text_of(result));
  };
  Opened opened{};
  expect(d.cuDeviceGet(&opened.device, ordinal));
  opened.info = info_of(ordinal, opened.device);
  const std::string problem = problem_of(opened.info, opened.device);
  check(problem.empty(), "ERR_DEVICE", "cuda:", ordinal, " cannot be used: ", problem);
  expect(d.cuDevicePrimaryCtxRetain(&opened.context, opened.device));
  expect(d.cuCtxSetCurrent(opened.context));
  expect(d.cuDeviceGetDefaultMemPool(&opened.pool, opened.device));
  // Freed memory stays in the pool until trim() or somebody is out of memory.
  uint64_t threshold = UINT64_MAX;
  expect(d.cuMemPoolSetAttribute(opened.pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
  return opened;
}

Device::Device(const Opened& opened)
    : info_(opened.info), context_(opened.context), pool_(opened.pool), modules_(*this), lanes_(*this), queue_(start()) {}

fovea::Stream& Device::start() {
  lanes_.start();
  return *new fovea::Stream(device(), &lanes_);
}

void Device::enter() const {
  // Each time: other libraries may change a thread's context.
  driver().cuCtxSetCurrent(context_);
}

// --- errors ---

void Device::expect(CUresult result, const std::string& what) {
  if (result == CUDA_SUCCESS) return;
  if (is_sticky(result)) throw Error(*lose(result, what));
  fail(result == CUDA_ERROR_OUT_OF_MEMORY ? "ERR_OOM" : "ERR_INTERNAL", "cuda:", info_.ordinal, ": ", what, ": ", text_of(result));
}

void Device::check_alive() const {
  if (is_lost_.load(std::memory_order_acquire)) throw Error(*lost());
}

std::shared_ptr<const Error> Device::lost() const {
  std::lock_guard lock(lost_mutex_);
  return lost_;
}

std::shared_ptr<const Error> Device::lose(CUresult result, const std::string& what) {
  std::lock_guard lock(lost_mutex_);
  if (!lost_) {
    lost_ =
        std::make_shared<const Error>("ERR_DEVICE", "cuda:" + std::to_string(info_.ordinal) + " is lost: " + what + ": " + text_of(result) +
                                                        unfinished_kernels() + "; its tensors are gone, start the process again to use it");
    is_lost_.store(true, std::memory_order_release);
  }
  return lost_;
}

void Device::note_launch(const char* kernel) {
  std::lock_guard lock(launches_mutex_);
  recent_[launches_.load(std::memory_order_relaxed) % kRemembered] = {kernel, lanes_.current()};
  launches_.fetch_add(1, std::memory_order_release);
}

std::string Device::unfinished_kernels() {
  std::lock_guard lock(launches_mutex_);
  const uint64_t end = launches_.load();
  int count = 0;
  std::string names;
  for (uint64_t i = end > kRemembered ? end - kRemembered : 0; i < end; i++) {
    const Launch& launch = recent_[i % kRemembered];
    const auto lane = launch.lane.lock();
    if (!lane || lane->has_finished(i)) continue;
    names += (count++ ? ", " : "") + std::string(launch.kernel);
  }
  if (count == 0) return "";
  if (count == 1) return "; the kernel was " + names;
  return "; kernels under way, oldest first: " + names + " (FOVEA_CUDA_SYNC=1 tells which)";
}

// --- memory ---

void* Device::try_allocate(size_t bytes, CUstream stream) {
  CUdeviceptr address = 0;
  const int64_t size = rounded(std::max<size_t>(bytes, 1));
  const CUresult result = driver().cuMemAllocAsync(&address, static_cast<size_t>(size), stream);
  if (result == CUDA_ERROR_OUT_OF_MEMORY) return nullptr;
  expect(result, "an allocation of " + std::to_string(bytes) + " bytes");
  const int64_t live = live_bytes_.fetch_add(size) + size;
  live_blocks_.fetch_add(1);
  for (int64_t peak = peak_bytes_.load(); live > peak && !peak_bytes_.compare_exchange_weak(peak, live);) {
  }
  return reinterpret_cast<void*>(address);
}

void Device::out_of_memory(size_t bytes) {
  const DeviceMemory m = memory();
  fail("ERR_OOM", "out of memory on cuda:", info_.ordinal, ": ", bytes, " bytes were asked for while ", m.live_bytes, " bytes in ",
       m.live_blocks, " tensors are live, of ", m.total_bytes, "; dispose tensors you no longer need (`using`, scope())");
}

void* Device::allocate_in(size_t bytes, CUstream stream, bool wait_for_queue) {
  check_alive();
  enter();
  if (void* data = try_allocate(bytes, stream)) return data;
  if (wait_for_queue) queue_.synchronize();  // frees may be queued
  expect(driver().cuCtxSynchronize(), "waiting for memory");
  expect(driver().cuMemPoolTrimTo(pool_, 0), "trimming the pool");
  if (void* data = try_allocate(bytes, stream)) return data;
  out_of_memory(bytes);
}

void* Device::allocate(size_t bytes) { return allocate_in(bytes, lanes_.of_caller().stream(), true); }
void* Device::allocate_now(size_t bytes) { return allocate_in(bytes, cu_stream(), false); }

void Device::note_release(size_t bytes) {
  live_bytes_.fetch_sub(rounded(std::max<size_t>(bytes, 1)));
  live_blocks_.fetch_sub(1);
}

void Device::release(Storage* storage) {
  note_release(storage->bytes());
  queue_.post("free", nullptr, {}, {}, [this, storage](const TaskContext&) {
    if (!is_lost_.load(std::memory_order_acquire)) {
      enter();
      driver().cuMemFreeAsync(reinterpret_cast<CUdeviceptr>(storage->data()), lanes_.last_of(*storage));
    }
    storage->drop_reference();
  });
}

void Device::release_now(void* data, size_t bytes) {
  note_release(bytes);
  if (!is_lost_.load(std::memory_order_acquire)) driver().cuMemFreeAsync(reinterpret_cast<CUdeviceptr>(data), cu_stream());
}

DeviceMemory Device::memory() const {
  enter();
  uint64_t reserved = 0;
  driver().cuMemPoolGetAttribute(pool_, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved);
  DeviceMemory m{};
  m.live_bytes = live_bytes_.load();
  m.live_blocks = live_blocks_.load();
  m.peak_live_bytes = peak_bytes_.load();
  m.cached_bytes = std::max<int64_t>(0, static_cast<int64_t>(reserved) - m.live_bytes);
  m.total_bytes = static_cast<int64_t>(info_.total_bytes);
  return m;
}

void Device::trim() {
  queue_.post("trim", nullptr, {}, {}, [this](const TaskContext&) {
    after_issued([this](const std::shared_ptr<const Error>& error) {
      if (!error) driver().cuMemPoolTrimTo(pool_, 0);
    });
  });
}

// --- copies ---

void Device::upload(void* to, const void* from, size_t bytes) {
  check_alive();
  enter();
  for (size_t at = 0; at < bytes;) {
    const Staging::Chunk chunk = staging_.take(bytes - at);
    const size_t n = std::min(bytes - at, chunk.bytes);
    std::memcpy(chunk.data, static_cast<const char*>(from) + at, n);
    const CUresult result = driver().cuMemcpyHtoDAsync_v2(reinterpret_cast<CUdeviceptr>(to) + at, chunk.data, n, cu_stream());
    events().after_issued([this, chunk](const std::shared_ptr<const Error>&) { staging_.give_back(chunk); });
    expect(result, "a copy of " + std::to_string(bytes) + " bytes to the device");
    at += n;
  }
}

void Device::download(void* to, const void* from, size_t bytes, WhenDone done) {
  enter();
  std::shared_ptr<const Error> error = lost();
  // The last callback reports the first error; callbacks come in order, on one thread.
  auto first = std::make_shared<std::shared_ptr<const Error>>();
  for (size_t at = 0; at < bytes && !error;) {
    error = error_of("a copy from the device", [&] {
      const Staging::Chunk chunk = staging_.take(bytes - at);
      const size_t n = std::min(bytes - at, chunk.bytes);
      const CUresult result = driver().cuMemcpyDtoHAsync_v2(chunk.data, reinterpret_cast<CUdeviceptr>(from) + at, n, cu_stream());
      if (result != CUDA_SUCCESS) staging_.give_back(chunk);
      expect(result, "a copy of " + std::to_string(bytes) + " bytes from the device");
      events().after_issued([this, chunk, n, first, target = static_cast<char*>(to) + at](const std::shared_ptr<const Error>& failed) {
        if (!failed) std::memcpy(target, chunk.data, n);
        else if (!*first) *first = failed;
        staging_.give_back(chunk);
      });
      at += n;
    });
  }
  events().after_issued([first, done = std::move(done)](const std::shared_ptr<const Error>& failed) { done(*first ? *first : failed); },
                        error);
}

void Device::after_issued(const WhenDone& done) {
  const auto lanes = lanes_.all();
  const auto one = after_all(lanes.size(), done);
  for (const auto& lane : lanes) lane->events().after_issued(one);
}

void Device::when_done(WhenDone done) {
  queue_.post("synchronize", nullptr, {}, {}, [this, done = std::move(done)](const TaskContext&) {
    auto skipped = queue_.take_errors();
    after_issued([done, skipped](const std::shared_ptr<const Error>& failed) { done(skipped ? skipped : failed); });
  });
}

}  // namespace fovea::cuda

namespace {

const bool registered = [] {
  fovea::set_backend_opener([](int ordinal) -> fovea::DeviceBackend& { return fovea::cuda::Device::get(ordinal); });
  return true;
}();

}  // namespace
