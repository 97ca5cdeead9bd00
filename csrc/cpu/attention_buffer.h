// Memory for the length of a kernel call, shared by its tasks.
#pragma once

#include <stdlib.h>

#include "core/error.h"
#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) {
    if (count <= 0) return;
    size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    data_ = static_cast<T*>(aligned_alloc(64, bytes));
    if (!data_) fail("ERR_OOM", "out of memory: attention needs ", bytes, " bytes for partial results");
  }
  ~Buffer() { free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
};

}  // namespace
}  // namespace fovea::cpu
