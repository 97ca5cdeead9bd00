#include "core/call_memory.h"

#include "core/allocator.h"

namespace fovea {

CallMemory::CallMemory(int64_t size)
    : data(size > 0 ? Allocator::instance().allocate_call(static_cast<size_t>(size)) : nullptr), bytes_(size) {}

CallMemory::~CallMemory() {
  if (data) Allocator::instance().release_call(data, static_cast<size_t>(bytes_));
}

}  // namespace fovea
