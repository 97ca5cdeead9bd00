#include "core/storage.h"

#include <mutex>
#include <new>

#include "core/allocator.h"
#include "core/stream.h"

namespace fovea {
namespace {

// Freed control blocks. Any thread pushes; who runs out takes the whole list, so that a plain compare-and-swap list is safe.
std::atomic<Storage*> freed{nullptr};
std::mutex spare_mutex;
Storage* spare = nullptr;

}  // namespace

Storage* Storage::make() {
  std::lock_guard lock(spare_mutex);
  if (!spare) spare = freed.exchange(nullptr, std::memory_order_acquire);
  if (!spare) return new Storage;
  Storage* storage = spare;
  spare = storage->next_;
  storage->~Storage();
  return new (storage) Storage;
}

void Storage::recycle() {
  poison_ = nullptr;
  lane_uses = nullptr;
  Storage* head = freed.load(std::memory_order_relaxed);
  do next_ = head;
  while (!freed.compare_exchange_weak(head, this, std::memory_order_release, std::memory_order_relaxed));
}

Storage* Storage::pooled(size_t bytes, bool idle) {
  Allocator& allocator = Allocator::instance();
  void* data = idle ? allocator.allocate_idle(bytes) : allocator.allocate(bytes);
  Storage* storage = make();
  storage->data_ = data;
  storage->bytes_ = bytes;
  return storage;
}

Storage* Storage::on_device(Device device, size_t bytes) {
  void* data = backend_of(device).allocate(bytes);
  Storage* storage = make();
  storage->data_ = data;
  storage->bytes_ = bytes;
  storage->device_ = device;
  if (const auto& lane = Lane::current(device)) storage->lane_uses.reset(new LaneUses{lane, nullptr, {}});
  return storage;
}

Storage* Storage::foreign(void* data, size_t bytes, void (*release)(void*), void* ctx, Memory memory) {
  Storage* storage = make();
  storage->data_ = data;
  storage->bytes_ = bytes;
  storage->memory_ = memory;
  storage->release_ = release;
  storage->release_ctx_ = ctx;
  return storage;
}

void Storage::drop_owner() {
  if (owners_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (!device_.is_cpu()) return backend_of(device_).release(this);
  if (memory_ == Memory::Pooled) Allocator::instance().release(data_, bytes_);
  else Stream::cpu().post("release", [release = release_, ctx = release_ctx_](const TaskContext&) { release(ctx); });
  drop_reference();
}

bool Storage::add_handle(const void* environment) {
  const void* reporter = nullptr;
  const bool first = reporter_.compare_exchange_strong(reporter, environment, std::memory_order_acq_rel);
  if (first || reporter == environment) handles_++;
  return first;
}

bool Storage::drop_handle(const void* environment) {
  if (reporter_.load(std::memory_order_acquire) != environment || --handles_ > 0) return false;
  reporter_.store(nullptr, std::memory_order_release);
  return true;
}

void Storage::drop_reference() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) recycle();
}

void Storage::set_poison(std::shared_ptr<const Error> error) {
  // Only the stream thread writes; the flag publishes the pointer.
  if (poisoned_.load(std::memory_order_relaxed)) return;
  poison_ = std::move(error);
  poisoned_.store(true, std::memory_order_release);
}

}  // namespace fovea
