// A stream: one thread that runs queued tasks in order. The CPU's spreads each task over the thread pool; a device's tasks issue work to
// the device, which runs it later in the same order.
//
// Enqueuing never runs a kernel on the caller. The queue is bounded: a full queue makes the enqueuing thread wait. The stream belongs to
// the process, so tensors handed between worker threads need no further ordering. A task that throws poisons the storages it writes
// (storage.h). Tasks belong to the lane (lane.h) that is current where they are queued.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "core/lane.h"
#include "core/storage.h"
#include "core/thread_pool.h"

namespace fovea {

struct TaskContext {
  ThreadPool& pool;
  const std::atomic<bool>* cancel;  // checked between tiles; may be null
};

// What a device does around each task, on the thread of its queue.
class TaskOrder {
 public:
  virtual ~TaskOrder() = default;
  virtual void before(const std::shared_ptr<Lane>& lane, Storage* const* reads, size_t n_reads, Storage* const* writes,
                      size_t n_writes) noexcept = 0;
  virtual void after(Storage* const* reads, size_t n_reads, Storage* const* writes, size_t n_writes) noexcept = 0;
};

// Shared by the tasks of one abortable call, or of one JavaScript environment.
using CancelToken = std::shared_ptr<std::atomic<bool>>;

class Task {
 public:
  virtual ~Task();
  virtual void run(const TaskContext&) = 0;

 private:
  friend class Stream;
  const char* name_ = "";
  CancelToken cancel_;
  std::shared_ptr<Lane> lane_;
  // Reads first, then writes. `in_place_` writers keep their storage's contents when skipped, so they are not poisoned by their inputs.
  Storage** storages_ = nullptr;
  Storage* inline_storages_[6];
  int reads_ = 0, writes_ = 0;
  bool in_place_ = false;
  bool always_ = false;  // aborted and poisoned or not
};

class Stream {
 public:
  static Stream& cpu();
  static Stream& of(Device device) { return device.is_cpu() ? cpu() : backend_of(device).stream(); }
  // For backends, which keep theirs for ever.
  explicit Stream(Device device, TaskOrder* order = nullptr);

  // Queues body(const TaskContext&). `reads` and `writes` are what it touches; they stay valid until it ran. Returns its position in the
  // stream.
  template <class Body>
  uint64_t launch(const char* name, std::initializer_list<Storage*> reads, std::initializer_list<Storage*> writes, Body&& body) {
    return submit(name, reads.begin(), reads.size(), writes.begin(), writes.size(), false, std::forward<Body>(body));
  }
  // For tasks that update `writes` in place (optimizer steps, cache append): skipped when an input is poisoned, leaving the target as it
  // was.
  template <class Body>
  uint64_t launch_in_place(const char* name, std::initializer_list<Storage*> reads, std::initializer_list<Storage*> writes, Body&& body) {
    return submit(name, reads.begin(), reads.size(), writes.begin(), writes.size(), true, std::forward<Body>(body));
  }
  // Housekeeping in stream order (reading back, letting memory go): runs whatever is aborted or poisoned.
  template <class Body>
  uint64_t post(const char* name, Body&& body) {
    return post(name, Lane::current(device_), {}, {}, std::forward<Body>(body));
  }
  // The same, touching storages, in a lane.
  template <class Body>
  uint64_t post(const char* name, std::shared_ptr<Lane> lane, std::initializer_list<Storage*> reads, std::initializer_list<Storage*> writes,
                Body&& body) {
    Slot& slot = place(std::forward<Body>(body));
    slot.task->always_ = true;
    slot.task->lane_ = std::move(lane);
    return end_submit(slot, name, nullptr, reads.begin(), reads.size(), writes.begin(), writes.size(), false);
  }
  template <class Body>
  uint64_t launch_spans(const char* name, Storage* const* reads, size_t n_reads, Storage* const* writes, size_t n_writes, bool in_place,
                        Body&& body) {
    return submit(name, reads, n_reads, writes, n_writes, in_place, std::forward<Body>(body));
  }

  uint64_t enqueued() const { return enqueued_.load(std::memory_order_acquire); }
  uint64_t completed() const { return completed_.load(std::memory_order_acquire); }
  void wait(uint64_t position);
  void synchronize() { wait(enqueued()); }

  // The first error of an in-place task that was skipped in a lane (null: the default) and that nobody has taken, or null; what
  // synchronize() reports.
  std::shared_ptr<const Error> take_error(const Lane* lane);
  // Takes those of all lanes and gives one.
  std::shared_ptr<const Error> take_errors();

  // The token given to tasks that this thread enqueues from now on.
  static void set_cancel_token(CancelToken token);

 private:
  template <class Body>
  struct BodyTask final : Task {
    explicit BodyTask(Body b) : body(std::move(b)) {}
    void run(const TaskContext& ctx) override { body(ctx); }
    Body body;
  };

  // A place in the queue. Tasks live in it, so that enqueuing allocates nothing (memory freed by another thread than its allocator's is
  // slow).
  struct Slot {
    static constexpr size_t kBytes = 512;
    alignas(64) std::byte memory[kBytes];
    Task* task;
  };

  template <class Body>
  Slot& place(Body&& body) {
    using T = BodyTask<std::decay_t<Body>>;
    Slot& slot = begin_submit();
    if constexpr (sizeof(T) <= Slot::kBytes) slot.task = new (slot.memory) T(std::forward<Body>(body));
    else slot.task = new T(std::forward<Body>(body));
    return slot;
  }
  template <class Body>
  uint64_t submit(const char* name, Storage* const* reads, size_t n_reads, Storage* const* writes, size_t n_writes, bool in_place,
                  Body&& body) {
    for (size_t i = 0; i < n_reads; i++)
      if (reads[i]->device() != device_) refuse(name, reads, n_reads);
    for (size_t i = 0; i < n_writes; i++)
      if (writes[i]->device() != device_) refuse(name, writes, n_writes);
    Slot& slot = place(std::forward<Body>(body));
    slot.task->lane_ = Lane::current(device_);
    return end_submit(slot, name, cancel_token(), reads, n_reads, writes, n_writes, in_place);
  }

  // What a task touches lies on its stream's device: ERR_UNSUPPORTED when all of it lies on another, ERR_DEVICE when it is mixed.
  [[noreturn]] void refuse(const char* name, Storage* const* storages, size_t count);
  // Waits for a free place and holds the queue until end_submit publishes it.
  Slot& begin_submit();
  uint64_t end_submit(Slot& slot, const char* name, CancelToken cancel, Storage* const* reads, size_t n_reads, Storage* const* writes,
                      size_t n_writes, bool in_place);
  static const CancelToken& cancel_token();
  void loop();
  void execute(Task& task);

  struct Impl;
  Device device_;
  TaskOrder* order_;
  Impl* impl_;
  std::atomic<uint64_t> enqueued_{0};
  std::atomic<uint64_t> completed_{0};
};

}  // namespace fovea
