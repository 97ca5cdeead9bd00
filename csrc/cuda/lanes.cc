#include "cuda/lanes.h"

#include <algorithm>

#include "cuda/device.h"

namespace fovea {

LanePoint::~LanePoint() { lane->events().give_back(event); }

namespace cuda {
namespace {

// The event's place in the lane's order, once its task has run.
struct Event final : LaneEvent {
  using LaneEvent::LaneEvent;
  std::shared_ptr<LanePoint> point;
};

}  // namespace

// --- one lane ---

Lane::Lane(Device& owner, uint64_t id) : fovea::Lane(owner.device(), id == 0), owner_(owner), id_(id), events_(owner, *this) {
  owner.enter();
  owner.expect(driver().cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "a stream");
}

Lane::~Lane() {
  owner_.enter();
  driver().cuStreamDestroy_v2(stream_);
}

void Lane::close() {
  owner_.stream().post("close a stream", nullptr, {}, {}, [self = shared_from_this()](const TaskContext&) {
    auto lane = std::static_pointer_cast<Lane>(self);
    lane->owner_.lanes().close(lane);
  });
}

std::shared_ptr<LaneEvent> Lane::record() {
  auto event = std::make_shared<Event>(device);
  owner_.stream().post("record", shared_from_this(), {}, {}, [event, this](const TaskContext&) {
    event->point = owner_.lanes().record(owner_.lanes().current());
    events_.after_issued([event](std::shared_ptr<const Error> error) { event->arrive(std::move(error)); });
  });
  return event;
}

void Lane::wait(std::shared_ptr<LaneEvent> event) {
  owner_.stream().post("wait", shared_from_this(), {}, {},
                       [event, this](const TaskContext&) { owner_.lanes().wait(*this, static_cast<const Event&>(*event).point); });
}

void Lane::when_done(WhenDone done) {
  owner_.stream().post("synchronize", shared_from_this(), {}, {}, [this, done = std::move(done)](const TaskContext&) {
    auto skipped = owner_.stream().take_error(this);
    events_.after_issued([done, skipped](const std::shared_ptr<const Error>& failed) { done(skipped ? skipped : failed); });
  });
}

void Lane::note_finished(uint64_t launches) {
  for (uint64_t known = finished_.load(); launches > known && !finished_.compare_exchange_weak(known, launches);) {
  }
}

// --- all of a device ---

void Lanes::start() {
  main_ = current_ = std::make_shared<Lane>(device_, 0);
  main_->events_.start(main_);
}

std::shared_ptr<Lane> Lanes::open() {
  device_.check_alive();
  auto lane = std::make_shared<Lane>(device_, next_id_++);
  lane->events_.start(lane);
  {
    std::lock_guard lock(mutex_);
    std::erase_if(lanes_, [](const auto& other) { return other.expired(); });
    lanes_.push_back(lane);
  }
  device_.stream().post("open a stream", nullptr, {}, {}, [this, lane](const TaskContext&) {
    if (opened_ == 0) baseline_ = record(main_);
    opened_++;
    wait(*lane, baseline_);
  });
  return lane;
}

std::shared_ptr<Lane> Lanes::aside() {
  std::lock_guard lock(mutex_);
  if (!aside_) {
    aside_ = std::make_shared<Lane>(device_, next_id_++);
    aside_->events_.start(aside_);
  }
  return aside_;
}

Lane& Lanes::of_caller() const {
  const auto& lane = Lane::current(device_.device());
  return lane ? static_cast<Lane&>(*lane) : *main_;
}

std::vector<std::shared_ptr<Lane>> Lanes::all() {
  std::vector<std::shared_ptr<Lane>> out{main_};
  std::lock_guard lock(mutex_);
  for (const auto& other : lanes_)
    if (auto lane = other.lock(); lane && !lane->closed_) out.push_back(std::move(lane));
  return out;
}

void Lanes::close(const std::shared_ptr<Lane>& lane) {
  lane->closed_ = true;
  lane->events_.stop();
  opened_--;
  wait(*main_, record(lane));
  for (const auto& other : all()) other->passed_.erase(lane->id_);
}

std::shared_ptr<LanePoint> Lanes::record(const std::shared_ptr<Lane>& lane) noexcept {
  try {
    return std::make_shared<LanePoint>(lane, ++lane->points_, lane->events_.record());
  } catch (const Error& error) {
    device_.lose(CUDA_ERROR_UNKNOWN, error.what());
    return nullptr;
  }
}

void Lanes::wait(Lane& lane, const std::shared_ptr<LanePoint>& point) noexcept {
  if (!point || point->lane.get() == &lane) return;
  uint64_t& passed = lane.passed_[point->lane->id_];
  if (passed >= point->sequence) return;
  device_.enter();
  const CUresult result = driver().cuStreamWaitEvent(lane.stream_, point->event, 0);
  if (result != CUDA_SUCCESS) device_.lose(result, "waiting for another stream");
  passed = point->sequence;
}

const std::shared_ptr<Lane>& Lanes::writer_of(const Storage& storage) const {
  const LaneUses* uses = storage.lane_uses.get();
  return uses && uses->written && !uses->written->lane->closed_ ? uses->written->lane : current_;
}

void Lanes::wait_for_uses(Lane& lane, const LaneUses& uses) noexcept {
  wait(lane, uses.written);
  for (const auto& point : uses.read) wait(lane, point);
}

CUstream Lanes::last_of(const Storage& storage) {
  const LaneUses* uses = storage.lane_uses.get();
  if (!uses || !tracking()) return main_->stream();
  const std::shared_ptr<LanePoint>& last = uses->read.empty() ? uses->written : uses->read.back();
  Lane* lane = last ? last->lane.get() : static_cast<Lane*>(uses->home.get());
  if (!lane || lane->closed_) lane = main_.get();
  wait_for_uses(*lane, *uses);
  return lane->stream();
}

void Lanes::before(const std::shared_ptr<fovea::Lane>& lane, Storage* const* reads, size_t n_reads, Storage* const* writes,
                   size_t n_writes) noexcept {
  current_ = lane && !lane->is_default ? std::static_pointer_cast<Lane>(lane) : main_;
  if (!tracking()) return;
  for (size_t i = 0; i < n_reads; i++)
    if (const LaneUses* uses = reads[i]->lane_uses.get(); uses) wait(*current_, uses->written);
  for (size_t i = 0; i < n_writes; i++)
    if (const LaneUses* uses = writes[i]->lane_uses.get()) wait_for_uses(*current_, *uses);
}

void Lanes::after(Storage* const* reads, size_t n_reads, Storage* const* writes, size_t n_writes) noexcept {
  if (!tracking() || n_reads + n_writes == 0) return;
  const auto point = record(current_);
  if (!point) return;
  const auto uses_of = [](Storage* storage) -> LaneUses& {
    if (!storage->lane_uses) storage->lane_uses = std::make_unique<LaneUses>();
    return *storage->lane_uses;
  };
  for (size_t i = 0; i < n_reads; i++) {
    auto& read = uses_of(reads[i]).read;
    std::erase_if(read, [&](const auto& other) { return other->lane == current_; });
    read.push_back(point);
  }
  for (size_t i = 0; i < n_writes; i++) {
    LaneUses& uses = uses_of(writes[i]);
    uses.written = point;
    uses.read.clear();
  }
}

}  // namespace cuda
}  // namespace fovea
