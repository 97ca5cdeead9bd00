// Driver API: device memory, the stream-ordered pool, pinned memory, copies and fills.
//
// An allocation's address is known at once; a stream-ordered free takes effect when the stream gets there. Copies from pageable memory
// take the bytes at the call, as the driver does; copies from pinned memory read it when they run. Copying bytes to the host that
// nothing has written is an error, and so is a copy that leaves its allocation.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "device.h"

using namespace fovea::emulator;

namespace {

struct Pinned {
  std::mutex mutex;
  std::map<uintptr_t, std::pair<size_t, bool>> ranges;  // begin -> bytes, ours to free
};
Pinned& pinned() {
  static Pinned* p = new Pinned;
  return *p;
}

bool is_pinned(const void* address, size_t bytes) {
  Pinned& p = pinned();
  const std::lock_guard lock(p.mutex);
  const uintptr_t at = reinterpret_cast<uintptr_t>(address);
  auto it = p.ranges.upper_bound(at);
  if (it == p.ranges.begin()) return false;
  --it;
  return at + bytes <= it->first + it->second.first;
}

CUresult refuse(const char* function, const std::string& why) {
  set_last_error(CUDA_ERROR_INVALID_VALUE, std::string(function) + ": " + why);
  return CUDA_ERROR_INVALID_VALUE;
}

// Memory of the device that is neither free nor in the pool's reserve.
uint64_t outside_pool(const Device& d) { return d.memory.used() - d.pool.used; }

CUresult allocate(Device& d, CUdeviceptr* address, size_t bytes, bool from_pool) {
  if (!address || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  for (int attempt = 0; attempt < 2; ++attempt) {
    {
      const std::lock_guard lock(d.mutex);
      CUmemPoolHandle_st& p = d.pool;
      const uint64_t grow = !from_pool ? bytes : p.used + bytes > p.reserved ? p.used + bytes - p.reserved : 0;
      if (outside_pool(d) + p.reserved + grow <= d.memory.limit()) {
        if (const uint64_t at = d.memory.allocate(bytes)) {
          if (from_pool) {
            d.pooled[at] = bytes;
            p.used += bytes;
            p.used_high = std::max(p.used_high, p.used);
            p.reserved = std::max(p.reserved, p.used);
            p.reserved_high = std::max(p.reserved_high, p.reserved);
          }
          *address = at;
          return CUDA_SUCCESS;
        }
      }
    }
    d.synchronize();  // frees may be under way
  }
  return CUDA_ERROR_OUT_OF_MEMORY;
}

void release(Device& d, uint64_t address) {
  const std::lock_guard lock(d.mutex);
  if (const auto it = d.pooled.find(address); it != d.pooled.end()) {
    d.pool.used -= it->second;
    d.pooled.erase(it);
    if (d.pool.reserved > std::max(d.pool.used, d.pool.threshold)) d.pool.reserved = std::max(d.pool.used, d.pool.threshold);
  }
  d.memory.release(address);
}

}  // namespace

CUresult cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
  FOVEA_CURRENT_DEVICE(d);
  return allocate(*d, address, bytes, false);
}

CUresult cuMemFree_v2(CUdeviceptr address) {
  FOVEA_CURRENT_DEVICE(d);
  if (address == 0) return CUDA_SUCCESS;
  d->synchronize();
  if (!d->memory.size_of(address)) return refuse("cuMemFree", d->memory.describe(address) + " can't be freed");
  release(*d, address);
  return CUDA_SUCCESS;
}

CUresult cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream) {
  FOVEA_CURRENT_DEVICE(d);
  return allocate(*d, address, bytes, true);
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream) {
  FOVEA_CURRENT_DEVICE(d);
  if (address == 0) return CUDA_SUCCESS;
  if (!d->memory.size_of(address)) return refuse("cuMemFreeAsync", d->memory.describe(address) + " can't be freed");
  d->stream(stream)->submit([d, address] { release(*d, address); });
  return CUDA_SUCCESS;
}

CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void* value) {
  if (!pool || !value) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard lock(pool->device->mutex);
  const auto give = [&](uint64_t v) {
    std::memcpy(value, &v, sizeof(v));
    return CUDA_SUCCESS;
  };
  switch (attribute) {
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: return give(pool->threshold);
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT: return give(pool->reserved);
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: return give(pool->reserved_high);
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: return give(pool->used);
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH: return give(pool->used_high);
    default: return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void* value) {
  if (!pool || !value) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard lock(pool->device->mutex);
  uint64_t v = 0;
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES: return CUDA_SUCCESS;
    default: std::memcpy(&v, value, sizeof(v));
  }
  if (attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) {
    pool->threshold = v;
  } else if (attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH && v == 0) {
    pool->reserved_high = pool->reserved;
  } else if (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH && v == 0) {
    pool->used_high = pool->used;
  } else {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep_bytes) {
  if (!pool) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard lock(pool->device->mutex);
  pool->reserved = std::min(pool->reserved, std::max<uint64_t>(pool->used, keep_bytes));
  return CUDA_SUCCESS;
}

CUresult cuMemAllocHost_v2(void** address, size_t bytes) {
  FOVEA_CURRENT_DEVICE(d);
  if (!address || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  *address = std::aligned_alloc(4096, (bytes + 4095) & ~size_t{4095});
  if (!*address) return CUDA_ERROR_OUT_OF_MEMORY;
  Pinned& p = pinned();
  const std::lock_guard lock(p.mutex);
  p.ranges[reinterpret_cast<uintptr_t>(*address)] = {bytes, true};
  return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void* address) {
  if (!address) return CUDA_SUCCESS;
  {
    Pinned& p = pinned();
    const std::lock_guard lock(p.mutex);
    const auto it = p.ranges.find(reinterpret_cast<uintptr_t>(address));
    if (it == p.ranges.end() || !it->second.second) return CUDA_ERROR_INVALID_VALUE;
    p.ranges.erase(it);
  }
  std::free(address);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  FOVEA_CURRENT_DEVICE(d);
  if (bytes == 0) return CUDA_SUCCESS;
  if (!from) return CUDA_ERROR_INVALID_VALUE;
  if (const std::string why = d->memory.check_range(to, bytes, false); !why.empty()) return refuse("cuMemcpyHtoDAsync", "target: " + why);
  const auto land = [d, to, bytes](const void* source) {
    std::memcpy(reinterpret_cast<void*>(to), source, bytes);
    d->memory.mark_written(to, bytes);
  };
  if (is_pinned(from, bytes)) {
    d->stream(stream)->submit([d, land, from] { run_guarded(*d, [&] { land(from); }); });
  } else {
    auto copy = std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    d->stream(stream)->submit([d, land, copy] { run_guarded(*d, [&] { land(copy->data()); }); });
  }
  return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  FOVEA_CURRENT_DEVICE(d);
  if (bytes == 0) return CUDA_SUCCESS;
  if (!to) return CUDA_ERROR_INVALID_VALUE;
  if (const std::string why = d->memory.check_range(from, bytes, false); !why.empty()) return refuse("cuMemcpyDtoHAsync", "source: " + why);
  CUstream_st* s = d->stream(stream);
  s->submit([d, to, from, bytes] {
    run_guarded(*d, [&] {
      if (const std::string why = d->memory.check_range(from, bytes, true); !why.empty()) {
        throw Fault(FaultKind::Uninitialized,
                    "cuMemcpyDtoHAsync of " + std::to_string(bytes) + " bytes, " + d->memory.describe(from) + ": " + why);
      }
      std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
    });
  });
  if (!is_pinned(to, bytes)) s->finish();
  return CUDA_SUCCESS;
}

CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes, CUstream stream) {
  FOVEA_CURRENT_DEVICE(d);
  if (bytes == 0) return CUDA_SUCCESS;
  if (!to_context || !from_context) return CUDA_ERROR_INVALID_CONTEXT;
  Device *target = to_context->device, *source = from_context->device;
  if (const std::string why = target->memory.check_range(to, bytes, false); !why.empty())
    return refuse("cuMemcpyPeerAsync", "target: " + why);
  if (const std::string why = source->memory.check_range(from, bytes, false); !why.empty())
    return refuse("cuMemcpyPeerAsync", "source: " + why);
  d->stream(stream)->submit([d, target, source, to, from, bytes] {
    run_guarded(*d, [&] {
      std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
      target->memory.copy_state_from(source->memory, to, from, bytes);
    });
  });
  return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  FOVEA_CURRENT_DEVICE(d);
  return cuMemcpyPeerAsync(to, &d->context, from, &d->context, bytes, stream);
}

namespace {

template <class T>
CUresult fill(const char* name, CUdeviceptr to, T value, size_t count, CUstream stream) {
  FOVEA_CURRENT_DEVICE(d);
  if (count == 0) return CUDA_SUCCESS;
  if (to % sizeof(T)) return CUDA_ERROR_INVALID_VALUE;
  const size_t bytes = count * sizeof(T);
  if (const std::string why = d->memory.check_range(to, bytes, false); !why.empty()) return refuse(name, why);
  d->stream(stream)->submit([d, to, value, count, bytes] {
    run_guarded(*d, [&] {
      std::fill_n(reinterpret_cast<T*>(to), count, value);
      d->memory.mark_written(to, bytes);
    });
  });
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
  return fill("cuMemsetD8Async", to, value, count, stream);
}
CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream) {
  return fill("cuMemsetD16Async", to, value, count, stream);
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
  return fill("cuMemsetD32Async", to, value, count, stream);
}
