// Memory for the length of one kernel call, shared by its tasks.
//
// Nothing here is inline: kernels compiled for one instruction set may use it without emitting a function another could be given.
#pragma once

#include <cstdint>

namespace fovea {

class CallMemory {
 public:
  // 64-byte aligned and uninitialised; no memory for 0 bytes. Throws ERR_OOM.
  explicit CallMemory(int64_t bytes);
  ~CallMemory();
  CallMemory(const CallMemory&) = delete;
  CallMemory& operator=(const CallMemory&) = delete;

  void* const data;
};

}  // namespace fovea
