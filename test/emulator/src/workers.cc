#include "workers.h"

#include <algorithm>

namespace fovea::emulator {

// Never destroyed: its threads may outlive static destruction at process exit.
Workers& Workers::instance() {
  static Workers* workers = new Workers;
  return *workers;
}

void Workers::run(int copies, const std::function<void()>& work) {
  Job job{&work, copies - 1, 0};
  if (copies > 1) {
    const std::lock_guard lock(mutex_);
    for (; threads_ < copies - 1; ++threads_) std::thread([this] { loop(); }).detach();
    jobs_.push_back(&job);
    wake_.notify_all();
  }
  work();
  if (copies > 1) {
    std::unique_lock lock(mutex_);
    job.left = 0;
    std::erase(jobs_, &job);
    done_.wait(lock, [&] { return job.running == 0; });
  }
}

void Workers::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return std::any_of(jobs_.begin(), jobs_.end(), [](const Job* j) { return j->left > 0; }); });
    Job& job = **std::find_if(jobs_.begin(), jobs_.end(), [](const Job* j) { return j->left > 0; });
    --job.left;
    ++job.running;
    lock.unlock();
    (*job.work)();
    lock.lock();
    if (--job.running == 0) done_.notify_all();
  }
}

}  // namespace fovea::emulator
