// Compiled kernels of one device, by entry point and splice. Each is a module of its own with one entry: variants nobody launches are
// never compiled. Where the build has a cubin for the device, an entry without a splice comes from the module of its whole file instead,
// and nothing is compiled; a driver that refuses the cubin gets the PTX.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "cuda/driver_api.h"
#include "cuda/launch.h"

namespace fovea::cuda {

class Device;
struct EmbeddedFile;

struct Kernel {
  std::string name;
  CUfunction function = nullptr;
  size_t dynamic_shared_bytes = 48 << 10;  // allowed so far
};

// Used on the thread of the device's stream alone.
class ModuleCache {
 public:
  explicit ModuleCache(Device& device) : device_(device) {}
  // Throws ERR_INTERNAL with the compiler's log, ERR_DEVICE when the driver is too old for the kernel.
  Kernel& get(const char* entry, const Splice* splice);

 private:
  std::unique_ptr<Kernel> load(const std::string& entry, const Splice* splice);
  CUmodule compile(const EmbeddedFile& file, const std::string& entry, const Splice* splice);
  // Null: no cubin for this device, or the driver refused it.
  CUmodule precompiled(const EmbeddedFile& file);

  Device& device_;
  std::unordered_map<std::string, std::unique_ptr<Kernel>> kernels_;
  std::unordered_map<const EmbeddedFile*, CUmodule> precompiled_;
  const EmbeddedFile* unpacked_ = nullptr;
  std::string ptx_;  // of that file
  std::string key_;
};

}  // namespace fovea::cuda
