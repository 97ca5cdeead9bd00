// A stream: one thread that runs queued tasks in order. The CPU's spreads each task over the thread pool; a device's tasks issue work to
// the device, which runs it later in the same order.
//
// Enqueuing never runs a kernel on the caller. The queue is bounded: a full queue makes the enqueuing thread wait, unless it is the thread
// of a stream, whose tasks let memory go (nobody else would empty the queue). The stream belongs to the process, so tensors handed between
// worker threads need no further ordering. A task that throws poisons the storages it writes (storage.h). Tasks belong to the lane (lane.h)
// that is current where they are queued.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>
#include <utility>

#include "core/cancel.h"
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

// The storages a task reads, then those it writes, with a reference to each.
class Touched {
 public:
  Touched(Storage* const* reads, size_t n_reads, Storage* const* writes, size_t n_writes);
  Touched(Touched&& other) noexcept;
  Touched& operator=(Touched&&) = delete;
  ~Touched();
  Storage* const* reads() const { return many_ ? many_.get() : few_; }
  Storage* const* writes() const { return reads() + n_reads_; }
  size_t n_reads() const { return n_reads_; }
  size_t n_writes() const { return n_writes_; }

 private:
  static constexpr size_t kFew = 6;
  Storage* few_[kFew];
  std::unique_ptr<Storage*[]> many_;
  size_t n_reads_, n_writes_;
};

// What a task is, but for its body.
struct TaskHead {
  const char* name;
  CancelToken cancel;
  std::shared_ptr<Lane> lane;
  Touched touched;
  bool in_place;  // skipped for its inputs, it leaves the contents of what it writes, so they are not poisoned
  bool always;    // aborted and poisoned or not
};

class Task {
 public:
  explicit Task(TaskHead h) : head(std::move(h)) {}
  virtual ~Task();
  virtual void run(const TaskContext&) = 0;
  const TaskHead head;
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
    return enqueue({name, nullptr, std::move(lane), {reads.begin(), reads.size(), writes.begin(), writes.size()}, false, true},
                   std::forward<Body>(body));
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
    template <class B>
    BodyTask(TaskHead h, B&& b) : Task(std::move(h)), body(std::forward<B>(b)) {}
    void run(const TaskContext& ctx) override { body(ctx); }
    Body body;
  };

  // A place in the queue. Tasks live in it, so that enqueuing allocates nothing (memory freed by another thread than its allocator's is
  // slow).
  struct Slot {
    static constexpr size_t kBytes = 640;
    alignas(64) std::byte memory[kBytes];
    Task* task;
  };

  template <class Body>
  uint64_t enqueue(TaskHead head, Body&& body) {
    using T = BodyTask<std::decay_t<Body>>;
    std::unique_lock<std::mutex> lock;
    Slot& slot = next_slot(lock);
    if constexpr (sizeof(T) <= Slot::kBytes) slot.task = new (slot.memory) T(std::move(head), std::forward<Body>(body));
    else slot.task = new T(std::move(head), std::forward<Body>(body));
    return publish(std::move(lock));
  }
  template <class Body>
  uint64_t submit(const char* name, Storage* const* reads, size_t n_reads, Storage* const* writes, size_t n_writes, bool in_place,
                  Body&& body) {
    for (size_t i = 0; i < n_reads; i++)
      if (reads[i]->device() != device_) refuse(name, reads, n_reads);
    for (size_t i = 0; i < n_writes; i++)
      if (writes[i]->device() != device_) refuse(name, writes, n_writes);
    return enqueue({name, cancel_token(), Lane::current(device_), {reads, n_reads, writes, n_writes}, in_place, false},
                   std::forward<Body>(body));
  }

  // What a task touches lies on its stream's device: ERR_UNSUPPORTED when all of it lies on another, ERR_DEVICE when it is mixed.
  [[noreturn]] void refuse(const char* name, Storage* const* storages, size_t count);
  struct Block;
  // Waits for room and locks the queue until publish().
  Slot& next_slot(std::unique_lock<std::mutex>& lock);
  uint64_t publish(std::unique_lock<std::mutex> lock) noexcept;
  static const CancelToken& cancel_token();
  void loop(Block* first);
  void execute(Task& task);

  struct Impl;
  Device device_;
  TaskOrder* order_;
  Impl* impl_;
  std::atomic<uint64_t> enqueued_{0};
  std::atomic<uint64_t> completed_{0};
};

}  // namespace fovea
