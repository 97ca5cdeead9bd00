#include "core/storage.h"

#include "core/allocator.h"
#include "core/stream.h"

namespace fovea {

Storage* Storage::pooled(size_t bytes, bool idle) {
  Allocator& allocator = Allocator::instance();
  void* data = idle ? allocator.allocate_idle(bytes) : allocator.allocate(bytes);
  auto* storage = new Storage;
  storage->data_ = data;
  storage->bytes_ = bytes;
  return storage;
}

Storage* Storage::foreign(void* data, size_t bytes, void (*release)(void*), void* ctx, bool read_only) {
  auto* storage = new Storage;
  storage->data_ = data;
  storage->bytes_ = bytes;
  storage->read_only_ = read_only;
  storage->release_ = release;
  storage->release_ctx_ = ctx;
  return storage;
}

void Storage::drop_owner() {
  if (owners_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (!release_) Allocator::instance().release(data_, bytes_);
  else Stream::cpu().launch("release", {}, {}, [release = release_, ctx = release_ctx_](const TaskContext&) { release(ctx); });
  drop_reference();
}

void Storage::drop_reference() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

void Storage::set_poison(std::shared_ptr<const Error> error) {
  // Only the stream thread writes; the flag publishes the pointer.
  if (poisoned_.load(std::memory_order_relaxed)) return;
  poison_ = std::move(error);
  poisoned_.store(true, std::memory_order_release);
}

}  // namespace fovea
