// The lanes of a device: CUDA streams whose work overlaps, and the order between them.
//
// All lanes are fed by the one queue of the device, in the order of the calls, so what is here runs on one thread. While there is more than
// the default lane, each task leaves a point (an event) with the storages it touches; a task waits for the points of other lanes that
// last wrote what it reads, or last used what it writes. Memory comes from the lane it is first used in and goes back in the lane that used
// it last, behind the points of all others. While there is the default lane alone, no points are made: the first lane to open waits for the
// default's work so far, and the default waits for a lane that closes.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/lane.h"
#include "core/stream.h"
#include "cuda/events.h"

namespace fovea::cuda {

class Device;

class Lane final : public fovea::Lane {
 public:
  Lane(Device& owner, uint64_t id);
  ~Lane() override;
  void close() override;
  std::shared_ptr<LaneEvent> record() override;
  void wait(std::shared_ptr<LaneEvent> event) override;
  void when_done(WhenDone done) override;

  CUstream stream() const { return stream_; }
  Events& events() { return events_; }
  // Of the device's first `launches`, those in this lane have finished.
  void note_finished(uint64_t launches);
  bool has_finished(uint64_t launch) const { return launch < finished_.load(std::memory_order_relaxed); }

 private:
  friend class Lanes;
  Device& owner_;
  const uint64_t id_;
  CUstream stream_ = nullptr;
  Events events_;
  std::atomic<uint64_t> finished_{0};
  bool closed_ = false;
  uint64_t points_ = 0;
  std::unordered_map<uint64_t, uint64_t> passed_;  // by lane, the latest of its points that this one has waited for
};

class Lanes final : public TaskOrder {
 public:
  explicit Lanes(Device& device) : device_(device) {}
  // Opens the default lane.
  void start();

  // From any thread.
  const std::shared_ptr<Lane>& main() const { return main_; }
  std::shared_ptr<Lane> open();
  // One for work that touches no storage, so that it waits for nothing and nothing waits for it.
  std::shared_ptr<Lane> aside();
  // The lane that the calling thread's tasks will be in.
  Lane& of_caller() const;

  // The rest is for the thread of the queue.
  const std::shared_ptr<Lane>& current() const { return current_; }
  std::vector<std::shared_ptr<Lane>> all();
  void close(const std::shared_ptr<Lane>& lane);
  // A failure of these loses the device: what comes after would run out of order. record() gives null then.
  std::shared_ptr<LanePoint> record(const std::shared_ptr<Lane>& lane) noexcept;
  void wait(Lane& lane, const std::shared_ptr<LanePoint>& point) noexcept;
  // Runs body(), which reads the storage, in the lane that wrote it last, if that is still open: it then waits for no other.
  template <class Body>
  void read(Storage* storage, Body&& body) {
    before(writer_of(*storage), &storage, 1, nullptr, 0);
    body();
    after(&storage, 1, nullptr, 0);
  }
  // The CUDA stream on which the storage's memory may be freed next, behind all uses.
  CUstream last_of(const Storage& storage);

  void before(const std::shared_ptr<fovea::Lane>& lane, Storage* const* reads, size_t n_reads, Storage* const* writes,
              size_t n_writes) noexcept override;
  void after(Storage* const* reads, size_t n_reads, Storage* const* writes, size_t n_writes) noexcept override;

 private:
  const std::shared_ptr<Lane>& writer_of(const Storage& storage) const;
  void wait_for_uses(Lane& lane, const LaneUses& uses) noexcept;
  bool tracking() const { return opened_ > 0; }

  Device& device_;
  std::shared_ptr<Lane> main_, current_, aside_;
  int opened_ = 0;                       // lanes but the default, as far as the queue has come
  std::shared_ptr<LanePoint> baseline_;  // of the default lane when the first of them opened
  std::mutex mutex_;
  std::vector<std::weak_ptr<Lane>> lanes_;
  std::atomic<uint64_t> next_id_{1};
};

}  // namespace fovea::cuda

namespace fovea {

// What a lane had been given at some time.
class LanePoint {
 public:
  LanePoint(std::shared_ptr<cuda::Lane> lane, uint64_t sequence, CUevent event) : lane(std::move(lane)), sequence(sequence), event(event) {}
  ~LanePoint();
  const std::shared_ptr<cuda::Lane> lane;
  const uint64_t sequence;
  const CUevent event;
};

}  // namespace fovea
