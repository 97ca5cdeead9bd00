#include "cuda/driver.h"

#include <cstdlib>

#ifndef _WIN32
#include <dlfcn.h>
#endif

#include "core/error.h"
#include "cuda/kernels.h"

namespace fovea::cuda {
namespace {

constexpr int kOldestVersion = 11040;  // stream-ordered memory and PTX 7.4

std::string version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

struct Loaded {
  Driver functions;
  DriverState state;

  Loaded() { state.problem = open(); }

  std::string open() {
    if (!built_with_kernels())
      return "this addon was built without CUDA kernels (FOVEA_CUDA=OFF, or no nvcc at build time); install the CUDA toolkit and build "
             "again";
#ifdef _WIN32
    return "CUDA is supported on Linux only";
#else
    const char* given = std::getenv("FOVEA_CUDA_DRIVER");
    const bool chosen = given && *given;
    state.path = chosen ? given : "libcuda.so.1";
    void* library = dlopen(state.path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      const char* why = dlerror();
      const std::string reason = why ? why : "unknown error";
      if (chosen) return "the driver in FOVEA_CUDA_DRIVER cannot be opened: " + reason;
      return "no NVIDIA driver on this machine (" + reason + "); install one, or give the container access to the GPU";
    }
    const char* missing = nullptr;
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)> >(dlsym(library, name));
      if (!function && !missing) missing = name;
    };
#define FOVEA_FIND(name) find(functions.name, #name);
    FOVEA_DRIVER_FUNCTIONS(FOVEA_FIND)
#undef FOVEA_FIND
    if (functions.cuDriverGetVersion) functions.cuDriverGetVersion(&state.version);
    const std::string old = "the driver " + state.path + " is too old: it is for CUDA " + version_text(state.version) + ", at least CUDA " +
                            version_text(kOldestVersion) + " (driver 470) is needed";
    if (missing) return state.version ? old + " (no " + missing + ")" : state.path + " is not a CUDA driver: it has no " + missing;
    if (state.version < kOldestVersion) return old;
    const CUresult result = functions.cuInit(0);
    if (result == CUDA_ERROR_STUB_LIBRARY)
      return state.path + " is the stub library of the CUDA toolkit, not a driver; take its folder out of LD_LIBRARY_PATH";
    if (result == CUDA_SUCCESS) functions.cuDeviceGetCount(&state.devices);
    if (result == CUDA_ERROR_NO_DEVICE || (result == CUDA_SUCCESS && state.devices == 0)) {
      const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
      return "the driver (CUDA " + version_text(state.version) + ") sees no device" +
             (visible ? std::string("; CUDA_VISIBLE_DEVICES is '") + visible + "'" : "");
    }
    if (result != CUDA_SUCCESS) {
      const char* name = nullptr;
      functions.cuGetErrorName(result, &name);
      return "the driver (CUDA " + version_text(state.version) + ") does not start: " + (name ? name : std::to_string(result));
    }
    return "";
#endif
  }
};

const Loaded& loaded() {
  static const auto* instance = new Loaded;
  return *instance;
}

}  // namespace

const DriverState& driver_state() { return loaded().state; }

const Driver& driver() {
  const Loaded& l = loaded();
  check(l.state.problem.empty(), "ERR_DEVICE", "CUDA is not available: ", l.state.problem);
  return l.functions;
}

std::string text_of(CUresult result) {
  const char *name = nullptr, *text = nullptr;
  driver().cuGetErrorName(result, &name);
  driver().cuGetErrorString(result, &text);
  return std::string(name ? name : "CUDA error") + " (" + std::to_string(static_cast<int>(result)) + "): " + (text ? text : "unknown");
}

}  // namespace fovea::cuda
