// The size of the block lies in front of what the caller gets.
#include "core/call_memory.h"

#include <cstring>

#include "core/allocator.h"
#include "core/red_zone.h"

namespace fovea {
namespace {

constexpr size_t kHeaderBytes = 64;

void* allocate(int64_t bytes) {
  if (bytes <= 0) return nullptr;
  const size_t size = static_cast<size_t>(bytes) + kHeaderBytes;
  char* block = static_cast<char*>(Allocator::instance().allocate_call(size));
  std::memcpy(block, &size, sizeof size);
  forbid(block + size, Allocator::block_size(size) - size);
  return block + kHeaderBytes;
}

}  // namespace

CallMemory::CallMemory(int64_t bytes) : data(allocate(bytes)) {}

CallMemory::~CallMemory() {
  if (!data) return;
  char* block = static_cast<char*>(data) - kHeaderBytes;
  size_t size;
  std::memcpy(&size, block, sizeof size);
  allow(block, Allocator::block_size(size));
  Allocator::instance().release_call(block, size);
}

}  // namespace fovea
