// Arrays with one copy on the host and one on the device, and comparing what the two backends make of them: both take the same parameters,
// so a check is the parameters as a function of the side.
#pragma once

#include <algorithm>

#include "../native/element.h"
#include "gpu.h"

namespace fovea::gpu {

enum class Side { Host, Device };

class Twin {
 public:
  // Filled with a pattern, so that an element nobody writes differs from any sensible one.
  Twin(Gpu& gpu, DType dtype, size_t count)
      : dtype_(dtype), count_(count), host_(count * size_of(dtype), 0xcd), device_(gpu, host_.size()) {
    device_.upload(host_.data());
  }
  // Element i is value(i).
  template <class Value>
  Twin(Gpu& gpu, DType dtype, size_t count, Value&& value)
      : dtype_(dtype), count_(count), host_(count * size_of(dtype)), device_(gpu, host_.size()) {
    for (size_t i = 0; i < count; i++) set_element(dtype, host_.data(), i, value(i));
    device_.upload(host_.data());
  }

  DType dtype() const { return dtype_; }
  template <class T = void>
  T* at(Side side) {
    return side == Side::Host ? reinterpret_cast<T*>(host_.data()) : device_.data<T>();
  }

  std::vector<double> on_device() const {
    std::vector<uint8_t> bytes(host_.size());
    device_.download(bytes.data());
    std::vector<double> values(count_);
    for (size_t i = 0; i < count_; i++) values[i] = element(dtype_, bytes.data(), i);
    return values;
  }

  // Largest difference of the device's elements from the host's, relative to the largest of the host's; infinite where one is not finite
  // and the other differs.
  double error() const {
    std::vector<uint8_t> other(host_.size());
    device_.download(other.data());
    if (other == host_) return 0;
    double worst = 0, scale = 0;
    for (size_t i = 0; i < count_; i++) {
      const double a = element(dtype_, host_.data(), i), b = element(dtype_, other.data(), i);
      if (std::isfinite(a)) scale = std::max(scale, std::fabs(a));
      if (a == b || (std::isnan(a) && std::isnan(b))) continue;
      worst = std::max(worst, std::isfinite(a) && std::isfinite(b) ? std::fabs(a - b) : INFINITY);
    }
    return worst == 0 ? 0 : worst / scale;
  }

 private:
  DType dtype_;
  size_t count_;
  std::vector<uint8_t> host_;
  DeviceArray device_;
};

class Comparison {
 public:
  Comparison(Gpu& gpu, Report& report) : gpu_(gpu), report_(report) {}
  Gpu& gpu() { return gpu_; }

  // params(side) gives what cpu(params) and cuda(params, stream) take; `outs` is what they write.
  template <class Params, class Cpu, class Cuda>
  void check(const std::string& name, const std::vector<Twin*>& outs, double tolerance, Params&& params, Cpu&& cpu, Cuda&& cuda) {
    cpu(params(Side::Host));
    gpu_.run([&](cuda::Stream& stream) { cuda(params(Side::Device), stream); });
    double error = 0;
    for (const Twin* out : outs) error = std::max(error, out->error());
    report_.add(name, error, tolerance);
  }

  Twin uniform(DType dtype, size_t count, double low, double high) {
    std::uniform_real_distribution<double> draw(low, high);
    return Twin(gpu_, dtype, count, [&](size_t) { return draw(engine_); });
  }
  Twin integers(DType dtype, size_t count, int64_t low, int64_t high) {
    std::uniform_int_distribution<int64_t> draw(low, high);
    return Twin(gpu_, dtype, count, [&](size_t) { return static_cast<double>(draw(engine_)); });
  }
  Twin blank(DType dtype, size_t count) { return Twin(gpu_, dtype, count); }
  Twin filled(DType dtype, size_t count, double value) {
    return Twin(gpu_, dtype, count, [=](size_t) { return value; });
  }

 private:
  Gpu& gpu_;
  Report& report_;
  std::mt19937_64 engine_{1};
};

}  // namespace fovea::gpu
