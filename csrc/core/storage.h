// Reference-counted memory under tensors.
//
// Two counts: owners are tensors (what JavaScript can reach); references add the queued tasks that use the control block. When the last
// owner goes, pool memory returns to the allocator at once, for kernels queued later (see allocator.h); foreign memory (a TypedArray, a
// mapped file) is let go by a task behind everything queued. A storage whose producer failed is poisoned: kernels that read it are skipped
// and poison what they would have written, and reading it on the host gives the producer's error.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "core/device.h"
#include "core/error.h"
#include "core/lane.h"

namespace fovea {

class Storage {
 public:
  static Storage* pooled(size_t bytes, bool idle = false);
  // Memory of a device, uninitialised.
  static Storage* on_device(Device device, size_t bytes);
  // Whose the memory is: a pool's, a TypedArray's of one JavaScript environment, or a file's, which can't be written.
  enum class Memory : uint8_t { Pooled, Borrowed, Mapped };
  // Memory of somebody else; release(ctx) runs on the stream thread once nothing queued uses it.
  static Storage* foreign(void* data, size_t bytes, void (*release)(void*), void* ctx, Memory memory);

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  bool read_only() const { return memory_ == Memory::Mapped; }
  bool borrowed() const { return memory_ == Memory::Borrowed; }
  Device device() const { return device_; }

  void add_owner() { owners_.fetch_add(1, std::memory_order_relaxed); }
  void drop_owner();
  bool sole_owner() const { return owners_.load(std::memory_order_relaxed) == 1; }
  void add_reference() { references_.fetch_add(1, std::memory_order_relaxed); }
  void drop_reference();

  // Handles are counted for the first environment that has any, until it has none: that is who reports the memory to its collector.
  // True for the first handle there, and for the last.
  bool add_handle(const void* environment);
  bool drop_handle(const void* environment);

  uint32_t version() const { return version_.load(std::memory_order_relaxed); }
  void bump_version() { version_.fetch_add(1, std::memory_order_relaxed); }

  const Error* poison() const { return poisoned_.load(std::memory_order_acquire) ? poison_.get() : nullptr; }
  const std::shared_ptr<const Error>& shared_poison() const { return poison_; }
  void set_poison(std::shared_ptr<const Error> error);

  // Null while no lane but the default has had to do with the storage.
  std::unique_ptr<LaneUses> lane_uses;

 private:
  Storage() = default;
  ~Storage() = default;
  // Control blocks are recycled: they are often freed by the stream thread, which would make malloc contend.
  static Storage* make();
  void recycle();

  void* data_ = nullptr;
  size_t bytes_ = 0;
  Memory memory_ = Memory::Pooled;
  Device device_;
  std::atomic<int32_t> owners_{1};
  std::atomic<int32_t> references_{1};  // one for all owners together
  std::atomic<const void*> reporter_{nullptr};
  int32_t handles_ = 0;  // of the reporter, for its thread alone
  std::atomic<uint32_t> version_{0};
  std::atomic<bool> poisoned_{false};
  std::shared_ptr<const Error> poison_;
  void (*release_)(void*) = nullptr;
  void* release_ctx_ = nullptr;
  Storage* next_ = nullptr;  // in the list of free control blocks
};

// Owns one owner count of a storage.
class StorageOwner {
 public:
  StorageOwner() = default;
  explicit StorageOwner(Storage* adopted) : storage_(adopted) {}
  StorageOwner(const StorageOwner& other) : storage_(other.storage_) {
    if (storage_) storage_->add_owner();
  }
  StorageOwner(StorageOwner&& other) noexcept : storage_(std::exchange(other.storage_, nullptr)) {}
  StorageOwner& operator=(StorageOwner other) noexcept {
    std::swap(storage_, other.storage_);
    return *this;
  }
  ~StorageOwner() {
    if (storage_) storage_->drop_owner();
  }
  Storage* get() const { return storage_; }
  Storage* operator->() const { return storage_; }
  explicit operator bool() const { return storage_ != nullptr; }

 private:
  Storage* storage_ = nullptr;
};

}  // namespace fovea
