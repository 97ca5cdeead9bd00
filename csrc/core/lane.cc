#include "core/lane.h"

#include <array>
#include <utility>

#include "core/stream.h"

namespace fovea {
namespace {

thread_local std::array<std::shared_ptr<Lane>, kMaxDevices + 1> current_lanes;

class CpuLane final : public Lane {
 public:
  explicit CpuLane(bool is_default) : Lane(Device::cpu(), is_default) {}
  void close() override {}
  std::shared_ptr<LaneEvent> record() override {
    auto event = std::make_shared<LaneEvent>(device);
    Stream::cpu().post("record", [event](const TaskContext&) { event->arrive(nullptr); });
    return event;
  }
  // What is queued from now on comes after everything that was recorded.
  void wait(std::shared_ptr<LaneEvent>) override {}
  void when_done(WhenDone done) override {
    Stream::cpu().post("synchronize", [self = shared_from_this(), done = std::move(done)](const TaskContext&) {
      done(Stream::cpu().take_error(self.get()));
    });
  }
};

}  // namespace

LaneEvent::~LaneEvent() = default;

void LaneEvent::arrive(std::shared_ptr<const Error> error) {
  std::vector<WhenDone> waiting;
  {
    std::lock_guard lock(mutex_);
    arrived_ = true;
    error_ = std::move(error);
    waiting.swap(waiting_);
  }
  for (const WhenDone& done : waiting) done(error_);
}

void LaneEvent::when_done(WhenDone done) {
  {
    std::lock_guard lock(mutex_);
    if (!arrived_) {
      waiting_.push_back(std::move(done));
      return;
    }
  }
  done(error_);
}

Lane::~Lane() = default;

std::shared_ptr<Lane> Lane::open(Device device) {
  return device.is_cpu() ? std::make_shared<CpuLane>(false) : backend_of(device).open_lane();
}

std::shared_ptr<Lane> Lane::default_of(Device device) {
  static auto* cpu = new std::shared_ptr<Lane>(std::make_shared<CpuLane>(true));
  return device.is_cpu() ? *cpu : backend_of(device).default_lane();
}

const std::shared_ptr<Lane>& Lane::current(Device device) { return current_lanes[static_cast<size_t>(device.code())]; }

std::shared_ptr<Lane> Lane::set_current(Device device, std::shared_ptr<Lane> lane) {
  if (lane && lane->is_default) lane = nullptr;
  return std::exchange(current_lanes[static_cast<size_t>(device.code())], std::move(lane));
}

}  // namespace fovea
