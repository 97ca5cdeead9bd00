// Moves between devices. Each is split over the two streams it concerns, and a task on one may wait for a task that was queued before on
// the other, never for a later one, so that no two streams wait for each other.
#include "ops/transfer.h"

#include <condition_variable>
#include <mutex>

#include "core/error_of.h"
#include "core/op.h"
#include "core/stream.h"
#include "cuda/device.h"
#include "ops/copy.h"
#include "ops/device.h"

namespace fovea {
namespace {

// One stream waits here for another.
class Arrival {
 public:
  void arrive(std::shared_ptr<const Error> error, std::shared_ptr<LanePoint> point = nullptr) {
    std::lock_guard lock(mutex_);
    error_ = std::move(error);
    point_ = std::move(point);
    arrived_ = true;
    changed_.notify_all();
  }
  // The error of what was waited for, or null.
  std::shared_ptr<const Error> wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return arrived_; });
    return error_;
  }
  CUevent event() const { return point_->event; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<const Error> error_;
  std::shared_ptr<LanePoint> point_;
  bool arrived_ = false;
};

// In a task: the arrival is where the task's lane is now.
void here(cuda::Device& device, Arrival& arrival) {
  auto point = device.lanes().record(device.lanes().current());
  auto error = point ? nullptr : device.lost();
  arrival.arrive(std::move(error), std::move(point));
}

// In a task: its lane goes on behind the arrival, which is of another device.
void wait_for(Arrival& arrival, cuda::Device& device) {
  device.check_alive();
  device.enter();
  device.expect(cuda::driver().cuStreamWaitEvent(device.cu_stream(), arrival.event(), 0), "waiting for another device");
}

size_t bytes_of(const Tensor& t) { return static_cast<size_t>(t.count()) * size_of(t.dtype); }

Tensor to_cpu(const Tensor& t) {
  // Idle memory: it is written when the device gets there, not when the CPU's stream does.
  Tensor out = Tensor::empty(t.shape, t.dtype, true);
  auto arrival = std::make_shared<Arrival>();
  read_device(t, out.data(), [arrival](std::shared_ptr<const Error> error) { arrival->arrive(std::move(error)); });
  Storage* storage = out.storage.get();
  storage->add_reference();
  // Not abortable: the memory must not be reused before the device is done with it.
  Stream::cpu().post("to cpu", [arrival, storage](const TaskContext&) {
    if (auto error = arrival->wait()) storage->set_poison(error);
    storage->drop_reference();
  });
  return out;
}

// The copy runs on the source's stream, so that nothing there overtakes it; the target's stream lends the memory and waits for it.
Tensor between_devices(const Tensor& t, Device device) {
  const Tensor source = contiguous(t);
  cuda::Device& from = cuda::Device::get(t.device().ordinal);
  cuda::Device& to = cuda::Device::get(device.ordinal);
  Tensor out = Tensor::empty(t.shape, t.dtype, device);
  auto ready = std::make_shared<Arrival>(), copied = std::make_shared<Arrival>();
  to.stream().post("to: memory", [ready, &to](const TaskContext&) { here(to, *ready); });
  Storage *storage = source.storage.get(), *result = out.storage.get();
  const auto address = [](const Tensor& x) { return reinterpret_cast<CUdeviceptr>(x.data()); };
  from.stream().post(
      "to: copy", Lane::current(from.device()), {storage}, {},
      [ready, copied, storage, target = address(out), origin = address(source), bytes = bytes_of(source), &from, &to](const TaskContext&) {
        std::shared_ptr<const Error> error = storage->poison() ? storage->shared_poison() : nullptr;
        if (auto failed = ready->wait(); failed && !error) error = failed;
        if (!error)
          error = error_of("to", [&] {
            wait_for(*ready, from);
            from.expect(cuda::driver().cuMemcpyPeerAsync(target, to.context(), origin, from.context(), bytes, from.cu_stream()),
                        "a copy to another device");
          });
        if (error) copied->arrive(std::move(error));
        else here(from, *copied);
      });
  to.stream().post("to: arrival", Lane::current(to.device()), {}, {result}, [copied, result, &to](const TaskContext&) {
    auto error = copied->wait();
    if (!error) error = error_of("to", [&] { wait_for(*copied, to); });
    if (error) result->set_poison(error);
  });
  return out;
}

Tensor move_to(const Tensor& t, int64_t code) { return to_device(t, Device::from_code(code)); }

const RegisterOp<&move_to> registration{"toDevice"};

}  // namespace

void read_device(const Tensor& t, void* target, WhenDone done) {
  const Tensor source = contiguous(t);
  cuda::Device& device = cuda::Device::get(t.device().ordinal);
  Storage* storage = source.storage.get();
  storage->add_reference();
  device.stream().post(
      "read", [&device, storage, target, origin = source.data(), bytes = bytes_of(source), done = std::move(done)](const TaskContext&) {
        device.lanes().read(storage, [&] {
          if (storage->poison()) device.events().after_issued(done, storage->shared_poison());
          else device.download(target, origin, bytes, done);
        });
        storage->drop_reference();
      });
}

Tensor upload(const Tensor& t, Device device) {
  Tensor out = Tensor::empty(t.shape, t.dtype, device);
  cuda::Device& target = cuda::Device::get(device.ordinal);
  const uint64_t computed = Stream::cpu().enqueued();
  target.stream().launch(
      "to", {}, {out.storage.get()},
      [&target, source = t.storage, from = t.data(), to = out.data(), bytes = bytes_of(t), computed](const TaskContext&) {
        Stream::cpu().wait(computed);
        if (const Error* error = source->poison()) throw Error(*error);
        target.upload(to, from, bytes);
      });
  return out;
}

Tensor to_device(const Tensor& t, Device device) {
  if (t.device() == device) return t;
  if (device.is_cpu()) return to_cpu(t);
  if (!t.device().is_cpu()) return between_devices(t, device);
  cuda::Device::get(device.ordinal);
  // A snapshot: tasks queued later on the CPU's stream may write to the tensor in place before the device's stream reads it.
  return upload(copy_as(t, t.dtype), device);
}

}  // namespace fovea
