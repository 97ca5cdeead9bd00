#include "cuda/staging.h"

#include <cstdlib>

#include "core/error.h"
#include "cuda/driver.h"

namespace fovea::cuda {

Staging::Chunk Staging::take(size_t wanted) {
  Size& size = size_for(wanted);
  std::unique_lock lock(mutex_);
  if (size.free.empty() && size.made < size.limit) {
    void* data = nullptr;
    // Where the system lets no more memory be pinned, copies are slower, not wrong.
    if (driver().cuMemAllocHost_v2(&data, size.bytes) != CUDA_SUCCESS) data = std::aligned_alloc(64, size.bytes);
    check(data != nullptr, "ERR_OOM", "out of memory: ", size.bytes, " bytes of host memory for a copy");
    size.made++;
    return {data, size.bytes};
  }
  returned_.wait(lock, [&] { return !size.free.empty(); });
  void* data = size.free.back();
  size.free.pop_back();
  return {data, size.bytes};
}

void Staging::give_back(Chunk chunk) {
  {
    std::lock_guard lock(mutex_);
    size_for(chunk.bytes).free.push_back(chunk.data);
  }
  returned_.notify_all();
}

}  // namespace fovea::cuda
