// Driver API: streams, events, host functions.
#include <chrono>

#include "device.h"

using namespace fovea::emulator;

CUstream_st::CUstream_st(Device* d) : device(d), thread_([this] { loop(); }) {}

CUstream_st::~CUstream_st() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    hurried_ = submitted_;
  }
  wake_.notify_all();
  thread_.join();
}

void CUstream_st::submit(std::function<void()> command) {
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
    ++submitted_;
  }
  wake_.notify_all();
  if (environment("FOVEA_EMULATOR_STREAMS", "thread") == "early") finish();
}

void CUstream_st::hurry() {
  const std::lock_guard lock(mutex_);
  hurried_ = submitted_;
  wake_.notify_all();
}

void CUstream_st::finish() {
  std::unique_lock lock(mutex_);
  const uint64_t target = hurried_ = submitted_;
  wake_.notify_all();
  done_.wait(lock, [&] { return completed_ >= target; });
}

bool CUstream_st::idle() {
  const std::lock_guard lock(mutex_);
  return completed_ == submitted_;
}

void CUstream_st::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || !commands_.empty(); });
    if (commands_.empty()) return;
    if (environment("FOVEA_EMULATOR_STREAMS", "thread") == "late") {
      wake_.wait_for(lock, std::chrono::milliseconds(1), [&] { return hurried_ > completed_; });
    }
    std::function<void()> command = std::move(commands_.front());
    commands_.pop_front();
    lock.unlock();
    command();
    command = nullptr;
    lock.lock();
    ++completed_;
    done_.notify_all();
  }
}

CUresult cuStreamCreate(CUstream* stream, unsigned) {
  FOVEA_CURRENT_DEVICE(d);
  if (!stream) return CUDA_ERROR_INVALID_VALUE;
  auto s = std::make_shared<CUstream_st>(d);
  *stream = s.get();
  const std::lock_guard lock(d->mutex);
  d->streams.emplace(*stream, std::move(s));
  return CUDA_SUCCESS;
}

CUresult cuStreamDestroy_v2(CUstream stream) {
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  // The last who holds it waits for its commands, outside the lock.
  const auto last = stream->device->kept(stream);
  if (!last) return CUDA_ERROR_INVALID_HANDLE;
  const std::lock_guard lock(last->device->mutex);
  last->device->streams.erase(stream);
  return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
  FOVEA_CURRENT_DEVICE(d);
  CUstream_st* s = d->stream(stream);
  s->finish();
  return s->device->sticky;
}

CUresult cuStreamQuery(CUstream stream) {
  FOVEA_CURRENT_DEVICE(d);
  CUstream_st* s = d->stream(stream);
  s->hurry();
  const bool idle = s->idle();
  if (s->device->sticky != CUDA_SUCCESS) return s->device->sticky;
  return idle ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult cuEventCreate(CUevent* event, unsigned) {
  FOVEA_CURRENT_DEVICE(d);
  if (!event) return CUDA_ERROR_INVALID_VALUE;
  *event = new CUevent_st{d, {}, {}, 0, 0, 0, nullptr};
  return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent event) {
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  // A command that still refers to the event must find it.
  event->device->synchronize();
  delete event;
  return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  FOVEA_CURRENT_DEVICE(d);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  CUstream_st* s = d->stream(stream);
  auto stream_of_event = d->kept(s);
  uint64_t ticket;
  {
    const std::lock_guard lock(event->mutex);
    ticket = ++event->recorded;
    event->stream.swap(stream_of_event);
  }
  s->submit([event, ticket] {
    const std::lock_guard lock(event->mutex);
    event->completed = std::max(event->completed, ticket);
    event->milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
    event->done.notify_all();
  });
  return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  FOVEA_CURRENT_DEVICE(d);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  CUstream_st* s = d->stream(stream);
  uint64_t ticket;
  std::shared_ptr<CUstream_st> other;
  {
    const std::lock_guard lock(event->mutex);
    ticket = event->recorded;
    other = event->stream;
  }
  if (other.get() == s) return CUDA_SUCCESS;
  if (other) other->hurry();
  s->submit([event, ticket] {
    std::unique_lock lock(event->mutex);
    event->done.wait(lock, [&] { return event->completed >= ticket; });
  });
  return CUDA_SUCCESS;
}

CUresult cuEventQuery(CUevent event) {
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  if (event->device->sticky != CUDA_SUCCESS) return event->device->sticky;
  const std::lock_guard lock(event->mutex);
  if (event->completed == event->recorded) return CUDA_SUCCESS;
  if (event->stream) event->stream->hurry();
  return CUDA_ERROR_NOT_READY;
}

CUresult cuEventSynchronize(CUevent event) {
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  std::unique_lock lock(event->mutex);
  if (event->completed != event->recorded && event->stream) event->stream->hurry();
  const uint64_t ticket = event->recorded;
  event->done.wait(lock, [&] { return event->completed >= ticket; });
  return event->device->sticky;
}

CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  if (!milliseconds) return CUDA_ERROR_INVALID_VALUE;
  if (!start || !end || !start->recorded || !end->recorded) return CUDA_ERROR_INVALID_HANDLE;
  if (cuEventQuery(start) != CUDA_SUCCESS || cuEventQuery(end) != CUDA_SUCCESS) return CUDA_ERROR_NOT_READY;
  *milliseconds = static_cast<float>(end->milliseconds - start->milliseconds);
  return CUDA_SUCCESS;
}

// As in CUDA, the function is not called once the device is lost.
CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void* data) {
  FOVEA_CURRENT_DEVICE(d);
  if (!function) return CUDA_ERROR_INVALID_VALUE;
  CUstream_st* s = d->stream(stream);
  s->submit([d, function, data] {
    if (d->sticky == CUDA_SUCCESS) function(data);
  });
  return CUDA_SUCCESS;
}
