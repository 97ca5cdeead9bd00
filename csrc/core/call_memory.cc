#include "core/call_memory.h"

#include <cstdlib>

#include "core/error.h"

namespace fovea {
namespace {

void* allocate(int64_t bytes) {
  if (bytes <= 0) return nullptr;
  void* data = std::aligned_alloc(64, (static_cast<size_t>(bytes) + 63) / 64 * 64);
  if (!data) fail("ERR_OOM", "out of memory: a kernel needs ", bytes, " bytes for partial results");
  return data;
}

}  // namespace

CallMemory::CallMemory(int64_t bytes) : data(allocate(bytes)) {}
CallMemory::~CallMemory() { std::free(data); }

}  // namespace fovea
