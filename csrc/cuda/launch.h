// Launching kernels: what the host code of every CUDA op is written against.
//
//   void softmax(const SoftmaxParams& p, cuda::Stream& stream) {
//     stream.launch("softmax_f32", {rows}, {256}, 0, p);
//   }
//
// A kernel is known by the name of its entry point in cuda/*.cu alone. It takes one argument, a plain struct, by value. The entry's PTX is
// cut out of its file, compiled by the driver on first use and kept (module_cache.h), so variants nobody launches cost nothing.
// Everything here is called on the thread of the device's stream (core/stream.h), in a task that csrc/ops queued; errors are thrown, and
// poison what the task writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace fovea::cuda {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

struct DeviceInfo {
  int ordinal;
  std::string name;
  int capability;  // 10 x major + minor: 80, 86, 90
  int multiprocessors;
  int max_threads_per_multiprocessor;
  size_t shared_bytes_per_block;  // the most a block may ask for
  size_t shared_bytes_per_multiprocessor;
  size_t total_bytes;
};

// Generated instructions for the places a kernel leaves open: each line of its PTX that holds `//@name operand, operand, ...` becomes the
// text of expand(). Kernels with equal keys are one compiled module.
class Splice {
 public:
  virtual ~Splice() = default;
  virtual std::string key() const = 0;
  virtual std::string expand(std::string_view module, std::string_view name, const std::vector<std::string_view>& operands) const = 0;
};

class Device;

// Device memory for the kernels launched before it goes out of scope.
class Scratch {
 public:
  Scratch(Device& device, size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T = void>
  T* data() const {
    return static_cast<T*>(data_);
  }

 private:
  Device& device_;
  void* data_;
  size_t bytes_;
};

class Stream {
 public:
  explicit Stream(Device& device) : device_(device) {}

  // Nothing happens when a grid dimension is 0. `shared_bytes` is dynamic shared memory, up to device().shared_bytes_per_block.
  template <class Params>
  void launch(const char* kernel, Dim3 grid, Dim3 block, size_t shared_bytes, const Params& params, const Splice* splice = nullptr) {
    static_assert(std::is_trivially_copyable_v<Params> && sizeof(Params) <= 4096);
    launch_bytes(kernel, grid, block, shared_bytes, &params, splice);
  }

  void copy(void* to, const void* from, size_t bytes);
  // `count` elements whose bytes are the low `element_bytes` (1, 2, 4 or 8) of `pattern`.
  void fill(void* data, uint64_t pattern, int element_bytes, size_t count);
  // Bytes of the host, taken at the call.
  void upload(void* to, const void* from, size_t bytes);
  Scratch scratch(size_t bytes) { return Scratch(device_, bytes); }

  const DeviceInfo& device() const;

 private:
  void fill_64(void* data, uint64_t pattern, size_t count);
  void launch_bytes(const char* kernel, Dim3 grid, Dim3 block, size_t shared_bytes, const void* params, const Splice* splice);

  Device& device_;
};

}  // namespace fovea::cuda
