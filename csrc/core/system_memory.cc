#include "core/system_memory.h"

#include <cstdlib>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace fovea {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

void* system_allocate(size_t bytes) {
  if (bytes < 2 * kHugePage) return std::aligned_alloc(kAlign, round_up(bytes, kAlign));
  void* data = std::aligned_alloc(kHugePage, round_up(bytes, kHugePage));
#ifdef __linux__
  if (data) madvise(data, bytes, MADV_HUGEPAGE);
#endif
  return data;
}

}  // namespace fovea
