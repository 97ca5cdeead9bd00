#include "cuda/launch.h"

#include <cstdlib>

#include "cuda/device.h"

namespace fovea::cuda {
namespace {

// FOVEA_CUDA_SYNC=1 waits after each launch, so that an error names the kernel that made it.
bool synchronous() {
  static const bool wanted = [] {
    const char* value = std::getenv("FOVEA_CUDA_SYNC");
    return value && *value == '1';
  }();
  return wanted;
}

CUdeviceptr address(const void* data) { return reinterpret_cast<CUdeviceptr>(data); }

void allow_shared(Device& device, Kernel& kernel, size_t bytes) {
  if (bytes <= kernel.dynamic_shared_bytes) return;
  check(bytes <= device.info().shared_bytes_per_block, "ERR_UNSUPPORTED", kernel.name, " needs ", bytes,
        " bytes of shared memory, a block on ", device.info().name, " has ", device.info().shared_bytes_per_block);
  device.expect(driver().cuFuncSetAttribute(kernel.function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, static_cast<int>(bytes)),
                kernel.name + ": shared memory");
  kernel.dynamic_shared_bytes = bytes;
}

std::string text_of(Dim3 d) { return std::to_string(d.x) + "x" + std::to_string(d.y) + "x" + std::to_string(d.z); }

}  // namespace

Scratch::Scratch(Device& device, size_t bytes) : device_(device), data_(device.allocate_now(bytes)), bytes_(bytes) {}
Scratch::~Scratch() { device_.release_now(data_, bytes_); }

const DeviceInfo& Stream::device() const { return device_.info(); }

void Stream::launch_bytes(const char* name, Dim3 grid, Dim3 block, size_t shared_bytes, const void* params, const Splice* splice) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  device_.check_alive();
  device_.enter();
  Kernel& kernel = device_.modules().get(name, splice);
  allow_shared(device_, kernel, shared_bytes);
  void* arguments[] = {const_cast<void*>(params)};
  device_.note_launch(kernel.name.c_str());
  CUresult result = driver().cuLaunchKernel(kernel.function, grid.x, grid.y, grid.z, block.x, block.y, block.z,
                                            static_cast<unsigned>(shared_bytes), device_.cu_stream(), arguments, nullptr);
  if (result == CUDA_SUCCESS && synchronous()) {
    const uint64_t launches = device_.launches();
    device_.lanes().current()->note_finished(launches - 1);
    result = driver().cuStreamSynchronize(device_.cu_stream());
    if (result == CUDA_SUCCESS) device_.lanes().current()->note_finished(launches);
  }
  if (result != CUDA_SUCCESS)
    device_.expect(result, "launching " + kernel.name + ", grid " + text_of(grid) + ", block " + text_of(block) + ", " +
                               std::to_string(shared_bytes) + " bytes of shared memory");
}

void Stream::copy(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  device_.check_alive();
  device_.enter();
  device_.expect(driver().cuMemcpyDtoDAsync_v2(address(to), address(from), bytes, device_.cu_stream()), "a copy on the device");
}

void Stream::fill(void* data, uint64_t pattern, int element_bytes, size_t count) {
  if (count == 0) return;
  device_.check_alive();
  device_.enter();
  const Driver& d = driver();
  CUstream stream = device_.cu_stream();
  const CUdeviceptr to = address(data);
  const bool halves_equal = static_cast<uint32_t>(pattern) == static_cast<uint32_t>(pattern >> 32);
  if (element_bytes == 1) device_.expect(d.cuMemsetD8Async(to, static_cast<uint8_t>(pattern), count, stream), "a fill");
  else if (element_bytes == 2) device_.expect(d.cuMemsetD16Async(to, static_cast<uint16_t>(pattern), count, stream), "a fill");
  else if (element_bytes == 4) device_.expect(d.cuMemsetD32Async(to, static_cast<uint32_t>(pattern), count, stream), "a fill");
  else if (halves_equal) device_.expect(d.cuMemsetD32Async(to, static_cast<uint32_t>(pattern), 2 * count, stream), "a fill");
  else fill_64(data, pattern, count);
}

void Stream::upload(void* to, const void* from, size_t bytes) {
  if (bytes > 0) device_.upload(to, from, bytes);
}

}  // namespace fovea::cuda
