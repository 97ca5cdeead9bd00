// Devices as JavaScript sees them: which there are, and where a tensor is.
#include "ops/device.h"

#include <string>

#include "core/op.h"

namespace fovea {

Device common_device(const char* op, std::initializer_list<const Tensor*> operands) {
  const Tensor* first = nullptr;
  for (const Tensor* t : operands) {
    if (!t->storage) continue;
    if (!first) first = t;
    check(t->device() == first->device(), "ERR_DEVICE", op, ": operands are on ", name_of(first->device()), " and ", name_of(t->device()),
          "; move them to one device with to()");
  }
  return first ? first->device() : Device::cpu();
}

namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') (out += '\\') += c;
    else out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + '"';
}

// JSON: { problem, driver, devices: [{ available, detail }] }; problem is empty where there is CUDA. Opens no device.
std::string cuda_devices() {
  const cuda::DriverState& state = cuda::driver_state();
  std::string out = "{\"problem\":" + quoted(state.problem) + ",\"driver\":" + quoted(state.path) + ",\"devices\":[";
  for (int i = 0; state.problem.empty() && i < state.devices; i++) {
    const cuda::DeviceStatus status = cuda::Device::status(i);
    out += std::string(i ? "," : "") + "{\"available\":" + (status.available ? "true" : "false") + ",\"detail\":" + quoted(status.detail) +
           "}";
  }
  return out + "]}";
}

int64_t device_of(const Tensor& t) { return t.device().code(); }

const RegisterOp<&cuda_devices> cuda_devices_registration{"cudaDevices"};
const RegisterOp<&device_of> device_of_registration{"device"};

}  // namespace
}  // namespace fovea
