#include "core/device.h"

#include <condition_variable>
#include <mutex>
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

void visit_opened(const std::function<void(DeviceBackend&)>& visit) {
  std::vector<DeviceBackend*> backends;
  {
    std::lock_guard lock(Opened::instance().mutex);
    backends = Opened::instance().backends;
  }
  for (DeviceBackend* backend : backends) visit(*backend);
}

void drain_devices() {
  std::mutex mutex;
  std::condition_variable changed;
  int waiting = 0;
  visit_opened([&](DeviceBackend& backend) {
    {
      std::lock_guard lock(mutex);
      waiting++;
    }
    backend.when_done([&](const std::shared_ptr<const Error>&) {
      std::lock_guard lock(mutex);
      waiting--;
      changed.notify_all();
    });
  });
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return waiting == 0; });
}

}  // namespace fovea
