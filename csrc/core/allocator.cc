#include "core/allocator.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/stream.h"
#include "core/system_memory.h"

namespace fovea {
namespace {

constexpr size_t kAlign = 64;
constexpr int kStepsPerDoubling = 8;
constexpr int kClasses = 48 * kStepsPerDoubling;
constexpr int64_t kSpareBytes = int64_t{256} << 20;

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

struct FreeBlock {
  void* data;
  uint64_t ready;  // the stream position after which nothing queued touches the block
  uint64_t age;    // counts releases: the block that lies unused longest has the least
};

}  // namespace

struct Allocator::Impl {
  mutable std::mutex mutex;
  std::vector<FreeBlock> free[kClasses];
  MemoryStats stats{};
  int64_t most_live_bytes = 0;  // ever; the peak of the statistics starts anew when it is read
  uint64_t releases = 0;

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
    stats.peak_live_bytes = std::max(stats.peak_live_bytes, stats.live_bytes);
    most_live_bytes = std::max(most_live_bytes, stats.live_bytes);
    return data;
  }

  // Under the mutex: a live block becomes a cached one.
  void give_back(void* data, int c, uint64_t ready) {
    const int64_t size = static_cast<int64_t>(class_bytes(c));
    stats.live_bytes -= size;
    stats.live_blocks--;
    stats.cached_bytes += size;
    free[c].push_back({data, ready, ++releases});
  }

  // What the cache may hold: as much as makes the most that was ever live, and a quarter. Work that repeats itself then never goes back to
  // the system, where every new page costs a fault, and work of ever new shapes does not pile up blocks.
  int64_t cache_limit() const { return std::max<int64_t>(0, most_live_bytes + most_live_bytes / 4 + kSpareBytes - stats.live_bytes); }

  // Under the mutex: takes blocks out of the cache, longest unused first, until it holds at most `limit` bytes.
  std::vector<void*> drop(int64_t limit) {
    if (stats.cached_bytes <= limit) return {};
    std::vector<std::pair<uint64_t, int64_t>> by_age;
    for (int c = 0; c < kClasses; c++)
      for (const FreeBlock& block : free[c]) by_age.emplace_back(block.age, static_cast<int64_t>(class_bytes(c)));
    std::sort(by_age.begin(), by_age.end());
    uint64_t last = 0;
    for (auto it = by_age.begin(); stats.cached_bytes > limit; ++it) {
      last = it->first;
      stats.cached_bytes -= it->second;
    }
    std::vector<void*> dropped;
    for (std::vector<FreeBlock>& list : free)
      std::erase_if(list, [&](const FreeBlock& block) {
        if (block.age > last) return false;
        dropped.push_back(block.data);
        return true;
      });
    return dropped;
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

namespace {

// Once the stream has passed the work queued so far.
void free_behind_queue(std::vector<void*> blocks) {
  if (blocks.empty()) return;
  Stream::cpu().post("trim", [blocks = std::move(blocks)](const TaskContext&) {
    for (void* data : blocks) std::free(data);
  });
}

}  // namespace

void Allocator::release(void* data, size_t bytes) {
  std::vector<void*> dropped;
  {
    std::lock_guard lock(impl_->mutex);
    impl_->give_back(data, class_of(bytes), Stream::cpu().enqueued());
    dropped = impl_->drop(impl_->cache_limit());
  }
  free_behind_queue(std::move(dropped));
}

void Allocator::trim() {
  std::vector<void*> dropped;
  {
    std::lock_guard lock(impl_->mutex);
    dropped = impl_->drop(0);
  }
  free_behind_queue(std::move(dropped));
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
