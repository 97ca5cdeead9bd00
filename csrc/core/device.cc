#include "core/device.h"

#include <future>
#include <mutex>
#include <utility>
#include <vector>

namespace fovea {
namespace {

DeviceBackend& (*opener)(int ordinal) = nullptr;

struct Opened {
  std::mutex mutex;
  std::vector<DeviceBackend*> backends;
  static Opened& instance() {
    static auto* opened = new Opened;
    return *opened;
  }
};

}  // namespace

Device Device::from_code(int64_t code) {
  check(code >= 0 && code <= kMaxDevices, "ERR_DEVICE", "there is no device cuda:", code - 1);
  return {static_cast<int8_t>(code - 1)};
}

std::string name_of(Device device) { return device.is_cpu() ? "cpu" : "cuda:" + std::to_string(device.ordinal); }

void set_backend_opener(DeviceBackend& (*open)(int ordinal)) { opener = open; }

DeviceBackend& backend_of(Device device) {
  check(!device.is_cpu() && opener, "ERR_INTERNAL", "no backend for device ", name_of(device));
  return opener(device.ordinal);
}

void note_opened(DeviceBackend& backend) {
  std::lock_guard lock(Opened::instance().mutex);
  Opened::instance().backends.push_back(&backend);
}

std::vector<DeviceBackend*> opened_backends() {
  std::lock_guard lock(Opened::instance().mutex);
  return Opened::instance().backends;
}

void visit_opened(const std::function<void(DeviceBackend&)>& visit) {
  for (DeviceBackend* backend : opened_backends()) visit(*backend);
}

WhenDone after_all(size_t count, WhenDone done) {
  struct Gathering {
    std::mutex mutex;
    size_t waiting;
    std::shared_ptr<const Error> error;
    WhenDone done;
  };
  auto all = std::make_shared<Gathering>();
  all->waiting = count;
  all->done = std::move(done);
  return [all](std::shared_ptr<const Error> error) {
    {
      std::lock_guard lock(all->mutex);
      if (error && !all->error) all->error = std::move(error);
      if (--all->waiting > 0) return;
    }
    all->done(all->error);
  };
}

void drain_devices() {
  const auto backends = opened_backends();
  if (backends.empty()) return;
  std::promise<void> drained;
  const auto one = after_all(backends.size(), [&](const std::shared_ptr<const Error>&) { drained.set_value(); });
  for (DeviceBackend* backend : backends) backend->when_done(one);
  drained.get_future().wait();
}

}  // namespace fovea
