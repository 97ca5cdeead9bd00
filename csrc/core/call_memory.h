// Memory for the length of one kernel call, shared by its tasks: a block of the run time's allocator, so that memory() counts it.
//
// Nothing here is inline: kernels compiled for one instruction set may use it without emitting a function another could be given.
#pragma once

#include <cstdint>

namespace fovea {

class CallMemory {
 public:
  // 64-byte aligned and uninitialised; no memory for size 0, in bytes. Throws ERR_OOM.
  explicit CallMemory(int64_t size);
  ~CallMemory();
  CallMemory(const CallMemory&) = delete;
  CallMemory& operator=(const CallMemory&) = delete;

  void* const data;

 private:
  const int64_t bytes_;
};

}  // namespace fovea
