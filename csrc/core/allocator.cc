#include "core/allocator.h"

#include <cstdlib>
#include <mutex>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "core/error.h"
#include "core/stream.h"

namespace fovea {
namespace {

constexpr size_t kAlign = 64;
constexpr int kStepsPerDoubling = 8;
constexpr int kClasses = 48 * kStepsPerDoubling;
constexpr int64_t kMinCacheBytes = int64_t{256} << 20;

// Classes are 64-byte units up to 8 of them, then eight steps per doubling, so a block wastes at most an eighth.
int class_of(size_t bytes) {
  if (bytes <= kAlign) return 0;
  size_t units = (bytes + kAlign - 1) / kAlign;
  int top = 63 - __builtin_clzll(units);
  if (top < 3) return static_cast<int>(units) - 1;
  size_t step = size_t{1} << (top - 3);
  size_t steps = (units + step - 1) / step;  // 8..16
  return (top - 3) * kStepsPerDoubling + static_cast<int>(steps) - 1;
}

size_t class_bytes(int c) {
  if (c < kStepsPerDoubling) return static_cast<size_t>(c + 1) * kAlign;
  int doubling = c / kStepsPerDoubling - 1;
  return (static_cast<size_t>(c % kStepsPerDoubling + 1 + kStepsPerDoubling) << doubling) * kAlign;
}

constexpr size_t kHugePage = size_t{2} << 20;

// Large blocks ask for huge pages: first touch then costs one fault per 2 MiB instead of 512.
void* system_allocate(size_t size) {
  if (size < 2 * kHugePage) return std::aligned_alloc(kAlign, size);
  void* data = std::aligned_alloc(kHugePage, (size + kHugePage - 1) / kHugePage * kHugePage);
#ifdef __linux__
  if (data) madvise(data, size, MADV_HUGEPAGE);
#endif
  return data;
}

struct FreeBlock {
  void* data;
  uint64_t ready;  // the stream position after which nothing queued touches the block
};

}  // namespace

struct Allocator::Impl {
  mutable std::mutex mutex;
  std::vector<FreeBlock> free[kClasses];
  MemoryStats stats{};

  void* take(int c, bool idle) {
    std::vector<FreeBlock>& list = free[c];
    if (list.empty()) return nullptr;
    size_t pick = list.size() - 1;
    if (idle) {
      uint64_t done = Stream::cpu().completed();
      while (list[pick].ready > done) {
        if (pick == 0) return nullptr;
        pick--;
      }
    }
    void* data = list[pick].data;
    list[pick] = list.back();
    list.pop_back();
    stats.cached_bytes -= static_cast<int64_t>(class_bytes(c));
    return data;
  }

  // Under the mutex: a block of class c, cached or new, counted as live; null when there is no room.
  void* acquire(int c, bool idle) {
    const size_t size = class_bytes(c);
    void* data = take(c, idle);
    if (!data && !over_limit(size)) data = system_allocate(size);
    if (!data) return nullptr;
    stats.live_bytes += static_cast<int64_t>(size);
    stats.live_blocks++;
    if (stats.live_bytes > stats.peak_live_bytes) stats.peak_live_bytes = stats.live_bytes;
    return data;
  }

  // Under the mutex: a live block becomes a cached one.
  void give_back(void* data, int c, uint64_t ready) {
    const int64_t size = static_cast<int64_t>(class_bytes(c));
    stats.live_bytes -= size;
    stats.live_blocks--;
    stats.cached_bytes += size;
    free[c].push_back({data, ready});
  }

  // Under the mutex: frees the cached blocks the stream is done with.
  void free_idle() {
    const uint64_t done = Stream::cpu().completed();
    for (int c = 0; c < kClasses; c++) {
      std::vector<FreeBlock>& list = free[c];
      for (size_t i = 0; i < list.size();) {
        if (list[i].ready > done) {
          i++;
          continue;
        }
        std::free(list[i].data);
        list[i] = list.back();
        list.pop_back();
        stats.cached_bytes -= static_cast<int64_t>(class_bytes(c));
      }
    }
  }

  bool over_limit(size_t bytes) const {
    return stats.limit_bytes > 0 && stats.live_bytes + stats.cached_bytes + static_cast<int64_t>(bytes) > stats.limit_bytes;
  }
};

Allocator& Allocator::instance() {
  static Allocator* allocator = new Allocator;
  return *allocator;
}

Allocator::Allocator() : impl_(new Impl) {}

size_t Allocator::block_size(size_t bytes) { return class_bytes(class_of(bytes)); }

namespace {

void check_size(size_t bytes) { check(bytes <= (size_t{1} << 46), "ERR_OOM", "out of memory: a block of ", bytes, " bytes was asked for"); }

[[noreturn]] void fail_for(size_t size, const MemoryStats& s) {
  fail("ERR_OOM", "out of memory: a block of ", size, " bytes was asked for while ", s.live_bytes, " bytes in ", s.live_blocks,
       " tensors are live and ", s.cached_bytes, " are cached", s.limit_bytes ? " (limit " : "",
       s.limit_bytes ? std::to_string(s.limit_bytes) + ")" : "",
       "; dispose tensors you no longer need (`using`, scope()) or raise the limit");
}

void* allocate_block(Allocator& self, size_t bytes, bool idle, auto& impl) {
  check_size(bytes);
  int c = class_of(bytes);
  size_t size = class_bytes(c);
  for (int attempt = 0;; attempt++) {
    std::unique_lock lock(impl.mutex);
    if (void* data = impl.acquire(c, idle)) return data;
    MemoryStats s = impl.stats;
    lock.unlock();
    if (attempt > 0) fail_for(size, s);
    self.trim();
    Stream::cpu().synchronize();
  }
}

}  // namespace

void* Allocator::allocate(size_t bytes) { return allocate_block(*this, bytes, false, *impl_); }
void* Allocator::allocate_idle(size_t bytes) { return allocate_block(*this, bytes, true, *impl_); }

void* Allocator::allocate_call(size_t bytes) {
  check_size(bytes);
  const int c = class_of(bytes);
  std::lock_guard lock(impl_->mutex);
  if (void* data = impl_->acquire(c, true)) return data;
  impl_->free_idle();
  if (void* data = impl_->acquire(c, true)) return data;
  fail_for(class_bytes(c), impl_->stats);
}

void Allocator::release_call(void* data, size_t bytes) {
  std::lock_guard lock(impl_->mutex);
  impl_->give_back(data, class_of(bytes), 0);
}

void Allocator::release(void* data, size_t bytes) {
  bool full;
  {
    std::lock_guard lock(impl_->mutex);
    impl_->give_back(data, class_of(bytes), Stream::cpu().enqueued());
    const MemoryStats& s = impl_->stats;
    full = s.cached_bytes > kMinCacheBytes && s.cached_bytes > s.peak_live_bytes / 2 + s.live_bytes;
  }
  if (full) trim();
}

void Allocator::trim() {
  auto blocks = std::vector<void*>();
  {
    std::lock_guard lock(impl_->mutex);
    for (int c = 0; c < kClasses; c++) {
      for (const FreeBlock& block : impl_->free[c]) blocks.push_back(block.data);
      impl_->free[c].clear();
    }
    impl_->stats.cached_bytes = 0;
  }
  if (blocks.empty()) return;
  Stream::cpu().post("trim", [blocks = std::move(blocks)](const TaskContext&) {
    for (void* data : blocks) std::free(data);
  });
}

MemoryStats Allocator::stats() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->stats;
}

void Allocator::reset_peak() {
  std::lock_guard lock(impl_->mutex);
  impl_->stats.peak_live_bytes = impl_->stats.live_bytes;
}

void Allocator::set_limit(int64_t bytes) {
  std::lock_guard lock(impl_->mutex);
  impl_->stats.limit_bytes = bytes;
}

}  // namespace fovea
