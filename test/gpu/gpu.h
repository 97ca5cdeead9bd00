// What the programs that check a real card share: running work on the device, arrays that lie on both sides, and the report.
//
// A program prints one JSON line per check on stdout, what failed on stderr, and ends with status 1 when anything did. The device is
// cuda:0 of the driver in FOVEA_CUDA_DRIVER, so the emulator will do.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <future>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../native/sixteen_bit.h"
#include "cuda/device.h"
#include "launches.h"

namespace fovea::gpu {

// The text after --name=, or `fallback`.
inline std::string text_argument(int argc, char** argv, const char* name, const char* fallback) {
  const std::string prefix = std::string("--") + name + "=";
  for (int i = 1; i < argc; i++)
    if (std::strncmp(argv[i], prefix.c_str(), prefix.size()) == 0) return argv[i] + prefix.size();
  return fallback;
}
inline double argument(int argc, char** argv, const char* name, double fallback) {
  const std::string text = text_argument(argc, argv, name, "");
  return text.empty() ? fallback : std::atof(text.c_str());
}

class Gpu {
 public:
  Gpu() { Launches::watch(); }
  cuda::Device& device() { return device_; }

  // Runs body(cuda::Stream&) as a task of the device's queue and waits for the device. Throws what went wrong on either side.
  template <class Body>
  void run(Body&& body) {
    std::exception_ptr thrown;
    device_.stream().post("check", [&](const TaskContext&) {
      try {
        device_.enter();
        cuda::Stream stream = device_.launcher();
        body(stream);
      } catch (...) {
        thrown = std::current_exception();
      }
    });
    std::promise<std::shared_ptr<const Error>> done;
    device_.when_done([&](std::shared_ptr<const Error> error) { done.set_value(std::move(error)); });
    const auto failed = done.get_future().get();
    if (thrown) std::rethrow_exception(thrown);
    if (failed) throw Error(*failed);
  }

 private:
  cuda::Device& device_ = cuda::Device::get(0);
};

// Device memory for as long as the object lives.
class DeviceArray {
 public:
  DeviceArray(Gpu& gpu, size_t bytes) : gpu_(gpu), data_(gpu.device().allocate(bytes)), bytes_(bytes) {}
  DeviceArray(Gpu& gpu, const void* host, size_t bytes) : DeviceArray(gpu, bytes) { upload(host); }
  ~DeviceArray() {
    gpu_.device().stream().post("free", [&device = gpu_.device(), data = data_, bytes = bytes_](const TaskContext&) {
      device.enter();
      device.release_now(data, bytes);
    });
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  template <class T = void>
  T* data() const {
    return static_cast<T*>(data_);
  }
  void upload(const void* host) {
    gpu_.run([&](cuda::Stream& stream) { stream.upload(data_, host, bytes_); });
  }
  void download(void* host) const {
    gpu_.run([&](cuda::Stream&) { gpu_.device().download(host, data_, bytes_, [](const std::shared_ptr<const Error>&) {}); });
  }

 private:
  Gpu& gpu_;
  void* data_;
  size_t bytes_;
};

// Arrays of one call, copied to the device.
class DeviceArrays {
 public:
  explicit DeviceArrays(Gpu& gpu) : gpu_(gpu) {}
  // Null for an empty array.
  template <class T>
  T* copy(const std::vector<T>& host) {
    if (host.empty()) return nullptr;
    arrays_.push_back(std::make_unique<DeviceArray>(gpu_, host.data(), host.size() * sizeof(T)));
    return arrays_.back()->template data<T>();
  }

 private:
  Gpu& gpu_;
  std::vector<std::unique_ptr<DeviceArray>> arrays_;
};

class Report {
 public:
  explicit Report(const char* suite) : suite_(suite) {}

  // One case of the check `name`; `what` describes it when it fails.
  void add(const std::string& name, double error, double tolerance, const std::string& what = "") {
    Check& check = checks_[name];
    check.cases++;
    check.worst = std::max(check.worst, std::isnan(error) ? INFINITY : error);
    check.tolerance = std::max(check.tolerance, tolerance);
    if (error <= tolerance) return;
    check.failed++;
    std::fprintf(stderr, "FAIL %s, %s: error %.3g, allowed %.3g %s\n", suite_, name.c_str(), error, tolerance, what.c_str());
  }
  void failed(const std::string& name, const std::string& what) { add(name, INFINITY, 0, what); }
  // A call that the library says it has no kernel for.
  void refused(const std::string& name, const char* reason) {
    checks_[name].refused++;
    checks_[name].reason = reason;
  }

  // Prints the lines; the program's exit status.
  int finish() const {
    bool good = true;
    Launches::watch().print(suite_, cuda::Device::get(0).info().capability);
    for (const auto& [name, c] : checks_) {
      good &= c.failed == 0;
      std::printf("{\"suite\": \"%s\", \"check\": \"%s\", \"cases\": %d, \"failed\": %d, \"refused\": %d, ", suite_, name.c_str(), c.cases,
                  c.failed, c.refused);
      if (c.refused > 0) std::printf("\"reason\": \"%s\", ", c.reason.c_str());
      if (std::isfinite(c.worst)) std::printf("\"worst\": %.3g, \"tolerance\": %.3g}\n", c.worst, c.tolerance);
      else std::printf("\"worst\": null, \"tolerance\": %.3g}\n", c.tolerance);
    }
    return good ? 0 : 1;
  }

 private:
  struct Check {
    int cases = 0, failed = 0, refused = 0;
    double worst = 0, tolerance = 0;
    std::string reason;
  };
  const char* suite_;
  std::map<std::string, Check> checks_;
};

inline double tolerance_of(DType dtype) {
  return dtype == DType::F32 ? 2e-5 : dtype == DType::BF16 ? 1e-2 : dtype == DType::F16 ? 2e-3 : dtype == DType::F64 ? 1e-12 : 0;
}

// Runs main's body; an error is reported as the library words it.
template <class Body>
int run_program(Body&& body) {
  try {
    return body();
  } catch (const Error& error) {
    std::fprintf(stderr, "%s: %s\n", error.code(), error.what());
    return 1;
  }
}

}  // namespace fovea::gpu
