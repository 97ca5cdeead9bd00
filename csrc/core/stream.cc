#include "core/stream.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/error_of.h"
#include "core/spin.h"

namespace fovea {
namespace {

constexpr uint64_t kCapacity = 4096;

thread_local CancelToken current_token;
thread_local bool on_stream_thread = false;

// A task between what its device does before and after it.
class Ordered {
 public:
  Ordered(TaskOrder* order, const TaskHead& task) : order_(order), touched_(task.touched) {
    if (order_) order_->before(task.lane, touched_.reads(), touched_.n_reads(), touched_.writes(), touched_.n_writes());
  }
  ~Ordered() {
    if (order_) order_->after(touched_.reads(), touched_.n_reads(), touched_.writes(), touched_.n_writes());
  }
  Ordered(const Ordered&) = delete;
  Ordered& operator=(const Ordered&) = delete;

 private:
  TaskOrder* order_;
  const Touched& touched_;
};

}  // namespace

// The queue is a ring of blocks. Where the next block is still in use, one is added between.
struct Stream::Block {
  static constexpr uint64_t kSlots = 256;
  Slot slots[kSlots];
  uint64_t end = 0;  // the position behind its last slot
  Block* next = this;
};

struct Stream::Impl {
  std::mutex submit_mutex;  // orders producers
  Block* tail = new Block;  // where the next task goes, below position `tail->end`
  std::mutex park_mutex;
  std::condition_variable work, progress;
  std::atomic<bool> parked{false};
  std::atomic<int> waiters{0};
  struct Skipped {
    std::shared_ptr<Lane> lane;
    std::shared_ptr<const Error> error;
  };
  std::mutex error_mutex;
  std::vector<Skipped> skipped;  // one a lane
};

Touched::Touched(Storage* const* reads, size_t n_reads, Storage* const* writes, size_t n_writes)
    : many_(n_reads + n_writes > kFew ? new Storage*[n_reads + n_writes] : nullptr), n_reads_(n_reads), n_writes_(n_writes) {
  Storage** all = many_ ? many_.get() : few_;
  std::copy_n(writes, n_writes, std::copy_n(reads, n_reads, all));
  for (size_t i = 0; i < n_reads + n_writes; i++) all[i]->add_reference();
}

Touched::Touched(Touched&& other) noexcept
    : many_(std::move(other.many_)), n_reads_(std::exchange(other.n_reads_, 0)), n_writes_(std::exchange(other.n_writes_, 0)) {
  if (!many_) std::copy_n(other.few_, n_reads_ + n_writes_, few_);
}

Touched::~Touched() {
  for (size_t i = 0; i < n_reads_ + n_writes_; i++) reads()[i]->drop_reference();
}

Task::~Task() = default;

Stream& Stream::cpu() {
  static Stream* stream = new Stream(Device::cpu());
  return *stream;
}

Stream::Stream(Device device, TaskOrder* order) : device_(device), order_(order), impl_(new Impl) {
  impl_->tail->end = Block::kSlots;
  std::thread([this, first = impl_->tail] { loop(first); }).detach();
}

void Stream::refuse(const char* name, Storage* const* storages, size_t count) {
  for (size_t i = 1; i < count; i++)
    check(storages[i]->device() == storages[0]->device(), "ERR_DEVICE", name, ": operands are on ", name_of(storages[0]->device()), " and ",
          name_of(storages[i]->device()), "; move them to one device with to()");
  const Device got = storages[0]->device();
  check(device_.is_cpu(), "ERR_DEVICE", name, ": operands are on ", name_of(got), " and ", name_of(device_),
        "; move them to one device with to()");
  fail("ERR_UNSUPPORTED", name, ": there is no CUDA kernel for this operation (operand on ", name_of(got),
       "); move the operands with to('cpu') to compute it there");
}

void Stream::set_cancel_token(CancelToken token) { current_token = std::move(token); }

Stream::Slot& Stream::next_slot(std::unique_lock<std::mutex>& lock) {
  lock = std::unique_lock(impl_->submit_mutex);
  uint64_t position = enqueued_.load(std::memory_order_relaxed);
  while (position - completed() >= kCapacity && !on_stream_thread) {
    lock.unlock();
    wait(position - kCapacity + kCapacity / 4);
    lock.lock();
    position = enqueued_.load(std::memory_order_relaxed);
  }
  Block*& tail = impl_->tail;
  if (position == tail->end) {
    // A block is free once the stream has completed a task behind it: then it does not look at its `next` any more.
    if (tail->next->end >= completed()) {
      Block* added = new Block;
      added->next = tail->next;
      tail->next = added;
    }
    tail = tail->next;
    tail->end = position + Block::kSlots;
  }
  return tail->slots[position % Block::kSlots];
}

const CancelToken& Stream::cancel_token() { return current_token; }

uint64_t Stream::publish(std::unique_lock<std::mutex> lock) noexcept {
  const uint64_t position = enqueued_.load(std::memory_order_relaxed) + 1;
  enqueued_.store(position, std::memory_order_seq_cst);
  lock.unlock();
  if (impl_->parked.load(std::memory_order_seq_cst)) {
    std::lock_guard park_lock(impl_->park_mutex);
    impl_->work.notify_one();
  }
  return position;
}

void Stream::loop(Block* first) {
  on_stream_thread = true;
  uint64_t next = 0;
  Block* block = first;
  for (;;) {
    if (!spin_until([&] { return enqueued_.load(std::memory_order_acquire) != next; }, kPatience)) {
      std::unique_lock lock(impl_->park_mutex);
      impl_->parked.store(true, std::memory_order_seq_cst);
      impl_->work.wait(lock, [&] { return enqueued_.load(std::memory_order_seq_cst) != next; });
      impl_->parked.store(false, std::memory_order_relaxed);
    }
    if (next > 0 && next % Block::kSlots == 0) block = block->next;
    Slot& slot = block->slots[next % Block::kSlots];
    execute(*slot.task);
    if (static_cast<void*>(slot.task) == slot.memory) slot.task->~Task();
    else delete slot.task;
    completed_.store(++next, std::memory_order_seq_cst);
    if (impl_->waiters.load(std::memory_order_seq_cst) > 0) {
      std::lock_guard lock(impl_->park_mutex);
      impl_->progress.notify_all();
    }
  }
}

void Stream::execute(Task& task) {
  const TaskHead& head = task.head;
  Storage *const *reads = head.touched.reads(), *const *writes = head.touched.writes();
  std::shared_ptr<const Error> error;
  bool ran = false;
  for (size_t i = 0; i < head.touched.n_reads() && !head.always && !error; i++)
    if (reads[i]->poison()) error = reads[i]->shared_poison();
  if (!error && head.cancel && head.cancel->stopped().load(std::memory_order_relaxed))
    error = std::make_shared<const Error>("ERR_ABORTED", std::string(head.name) + ": aborted before it ran", head.cancel->cause());
  if (!error) {
    ran = true;
    error = error_of(head.name, [&] {
      const Ordered ordered(order_, head);
      task.run({ThreadPool::instance(), head.cancel ? &head.cancel->stopped() : nullptr});
    });
    if (!error) return;
    if (head.cancel && !error->cause() && std::string_view(error->code()) == "ERR_ABORTED")
      error = std::make_shared<const Error>(error->code(), error->what(), head.cancel->cause());
  }
  if (head.in_place) {
    std::lock_guard lock(impl_->error_mutex);
    const auto same = [&](const Impl::Skipped& other) { return other.lane == head.lane; };
    if (std::none_of(impl_->skipped.begin(), impl_->skipped.end(), same)) impl_->skipped.push_back({head.lane, error});
  }
  if (!head.in_place || ran)
    for (size_t i = 0; i < head.touched.n_writes(); i++) writes[i]->set_poison(error);
}

void Stream::wait(uint64_t position) {
  if (spin_until([&] { return completed() >= position; }, kPatience)) return;
  std::unique_lock lock(impl_->park_mutex);
  impl_->waiters.fetch_add(1, std::memory_order_seq_cst);
  impl_->progress.wait(lock, [&] { return completed_.load(std::memory_order_seq_cst) >= position; });
  impl_->waiters.fetch_sub(1, std::memory_order_relaxed);
}

std::shared_ptr<const Error> Stream::take_error(const Lane* lane) {
  std::lock_guard lock(impl_->error_mutex);
  auto& skipped = impl_->skipped;
  const auto found = std::find_if(skipped.begin(), skipped.end(),
                                  [&](const Impl::Skipped& one) { return lane && !lane->is_default ? one.lane.get() == lane : !one.lane; });
  if (found == skipped.end()) return nullptr;
  auto error = std::move(found->error);
  skipped.erase(found);
  return error;
}

std::shared_ptr<const Error> Stream::take_errors() {
  std::lock_guard lock(impl_->error_mutex);
  if (impl_->skipped.empty()) return nullptr;
  auto error = std::move(impl_->skipped.front().error);
  impl_->skipped.clear();
  return error;
}

}  // namespace fovea
