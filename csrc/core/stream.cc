#include "core/stream.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace fovea {
namespace {

constexpr uint64_t kCapacity = 4096;
// Places only the stream thread itself may take (a task that lets foreign memory go), since it cannot wait for itself.
constexpr uint64_t kReserved = 256;
constexpr int kSpins = 20000;  // about 50 us before the stream thread parks: a burst of small ops needs no wake-ups

thread_local CancelToken current_token;
thread_local bool on_stream_thread = false;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A task between what its device does before and after it.
class Ordered {
 public:
  Ordered(TaskOrder* order, const std::shared_ptr<Lane>& lane, Storage* const* storages, size_t reads, size_t writes)
      : order_(order), storages_(storages), reads_(reads), writes_(writes) {
    if (order_) order_->before(lane, storages_, reads_, storages_ + reads_, writes_);
  }
  ~Ordered() {
    if (order_) order_->after(storages_, reads_, storages_ + reads_, writes_);
  }
  Ordered(const Ordered&) = delete;
  Ordered& operator=(const Ordered&) = delete;

 private:
  TaskOrder* order_;
  Storage* const* storages_;
  size_t reads_, writes_;
};

}  // namespace

struct Stream::Impl {
  Slot ring[kCapacity + kReserved];
  std::mutex submit_mutex;  // orders producers
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

Task::~Task() {
  for (int i = 0; i < reads_ + writes_; i++) storages_[i]->drop_reference();
  if (storages_ != inline_storages_) delete[] storages_;
}

Stream& Stream::cpu() {
  static Stream* stream = new Stream(Device::cpu());
  return *stream;
}

Stream::Stream(Device device, TaskOrder* order) : device_(device), order_(order), impl_(new Impl) {
  std::thread([this] { loop(); }).detach();
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

Stream::Slot& Stream::begin_submit() {
  impl_->submit_mutex.lock();
  uint64_t position = enqueued_.load(std::memory_order_relaxed);
  if (position - completed() >= kCapacity && !on_stream_thread) wait(position - kCapacity + kCapacity / 4);
  return impl_->ring[position % (kCapacity + kReserved)];
}

const CancelToken& Stream::cancel_token() { return current_token; }

uint64_t Stream::end_submit(Slot& slot, const char* name, CancelToken cancel, Storage* const* reads, size_t n_reads, Storage* const* writes,
                            size_t n_writes, bool in_place) {
  Task* task = slot.task;
  task->name_ = name;
  task->cancel_ = std::move(cancel);
  task->in_place_ = in_place;
  task->storages_ = n_reads + n_writes <= std::size(task->inline_storages_) ? task->inline_storages_ : new Storage*[n_reads + n_writes];
  for (size_t i = 0; i < n_reads; i++) task->storages_[i] = reads[i];
  for (size_t i = 0; i < n_writes; i++) task->storages_[n_reads + i] = writes[i];
  task->reads_ = static_cast<int>(n_reads);
  task->writes_ = static_cast<int>(n_writes);
  for (size_t i = 0; i < n_reads + n_writes; i++) task->storages_[i]->add_reference();
  uint64_t position = enqueued_.load(std::memory_order_relaxed) + 1;
  enqueued_.store(position, std::memory_order_seq_cst);
  impl_->submit_mutex.unlock();
  if (impl_->parked.load(std::memory_order_seq_cst)) {
    std::lock_guard park_lock(impl_->park_mutex);
    impl_->work.notify_one();
  }
  return position;
}

void Stream::loop() {
  on_stream_thread = true;
  uint64_t next = 0;
  for (;;) {
    for (int spins = 0; enqueued_.load(std::memory_order_acquire) == next;) {
      if (++spins < kSpins) {
        relax();
        continue;
      }
      std::unique_lock lock(impl_->park_mutex);
      impl_->parked.store(true, std::memory_order_seq_cst);
      impl_->work.wait(lock, [&] { return enqueued_.load(std::memory_order_seq_cst) != next; });
      impl_->parked.store(false, std::memory_order_relaxed);
    }
    Slot& slot = impl_->ring[next % (kCapacity + kReserved)];
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
  std::shared_ptr<const Error> error;
  bool own = false;  // the task itself failed, rather than an input
  const auto reads = static_cast<size_t>(task.reads_), writes = static_cast<size_t>(task.writes_);
  for (size_t i = 0; i < reads && !task.always_ && !error; i++)
    if (task.storages_[i]->poison()) error = task.storages_[i]->shared_poison();
  if (!error && task.cancel_ && task.cancel_->load(std::memory_order_relaxed)) {
    error = std::make_shared<const Error>("ERR_ABORTED", std::string(task.name_) + ": aborted before it ran");
    own = true;
  }
  if (!error) try {
      const Ordered ordered(order_, task.lane_, task.storages_, reads, writes);
      task.run({ThreadPool::instance(), task.cancel_.get()});
      return;
    } catch (const Error& e) {
      error = std::make_shared<const Error>(e);
      own = true;
    } catch (const std::exception& e) {
      error = std::make_shared<const Error>("ERR_INTERNAL", std::string(task.name_) + ": " + e.what());
      own = true;
    }
  if (task.in_place_) {
    std::lock_guard lock(impl_->error_mutex);
    const auto same = [&](const Impl::Skipped& other) { return other.lane == task.lane_; };
    if (std::none_of(impl_->skipped.begin(), impl_->skipped.end(), same)) impl_->skipped.push_back({task.lane_, error});
  }
  if (!task.in_place_ || own)
    for (size_t i = reads; i < reads + writes; i++) task.storages_[i]->set_poison(error);
}

void Stream::wait(uint64_t position) {
  for (int spins = 0; spins < 2000; spins++) {
    if (completed() >= position) return;
    relax();
  }
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
