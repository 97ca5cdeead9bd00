#include "cuda/events.h"

#include <thread>

#include "cuda/device.h"
#include "cuda/lanes.h"

namespace fovea::cuda {

Events::~Events() {
  device_.enter();
  for (CUevent event : free_) driver().cuEventDestroy_v2(event);
}

void Events::start(std::shared_ptr<Lane> lane) {
  std::thread([this, lane = std::move(lane)] { loop(); }).detach();
}

void Events::stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_one();
}

CUevent Events::take() {
  {
    std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      CUevent event = free_.back();
      free_.pop_back();
      return event;
    }
  }
  CUevent event = nullptr;
  device_.expect(driver().cuEventCreate(&event, CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING), "an event");
  return event;
}

void Events::give_back(CUevent event) {
  std::lock_guard lock(mutex_);
  free_.push_back(event);
}

CUevent Events::record() {
  device_.enter();
  CUevent event = take();
  const CUresult result = driver().cuEventRecord(event, lane_.stream());
  if (result != CUDA_SUCCESS) {
    give_back(event);
    device_.expect(result, "recording an event");
  }
  return event;
}

void Events::after_issued(Action action, std::shared_ptr<const Error> error) {
  Item item{nullptr, device_.launches(), std::move(error), std::move(action)};
  try {
    item.event = record();
  } catch (const Error& e) {
    if (!item.error) item.error = std::make_shared<const Error>(e);
  }
  std::lock_guard lock(mutex_);
  items_.push_back(std::move(item));
  changed_.notify_one();
}

void Events::loop() {
  for (;;) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ || !items_.empty(); });
    if (items_.empty()) return;
    Item item = std::move(items_.front());
    items_.pop_front();
    lock.unlock();
    if (item.event) {
      device_.enter();
      const CUresult result = driver().cuEventSynchronize(item.event);
      if (result == CUDA_SUCCESS) lane_.note_finished(item.launches);
      else if (auto lost = device_.lose(result, "waiting for the device"); !item.error) item.error = std::move(lost);
      give_back(item.event);
    }
    item.action(item.error);
  }
}

}  // namespace fovea::cuda
