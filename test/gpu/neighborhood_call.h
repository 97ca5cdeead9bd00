// A neighborhood attention call on the device, held against the double-precision loops or against golden arrays.
#pragma once

#include "../native/neighborhood_reference.h"
#include "cuda/neighborhood.h"
#include "cuda/neighborhood_backward.h"
#include "twin.h"

namespace fovea::gpu {

// [batch, ...space, heads, dim], contiguous.
inline NeighborhoodTensor lattice_rows(const NeighborhoodParams& p, void* data, int64_t heads, int64_t dim) {
  NeighborhoodTensor t{data, p.tokens * heads * dim, {}, dim, 1};
  int64_t pitch = heads * dim;
  for (int a = kNeighborhoodAxes - 1; a >= 0; a--) t.sp[a] = pitch, pitch *= p.axis[a].length;
  return t;
}
inline NeighborhoodTensor extra_rows(const NeighborhoodParams& p, void* data, int64_t dim) {
  return {data, p.extra * p.heads_kv * dim, {0, 0, p.heads_kv * dim}, dim, 1};
}

class NeighborhoodCall {
 public:
  // `a` has what is given, of values that the dtype holds, and what is wanted.
  NeighborhoodCall(Gpu& gpu, NeighborhoodParams p, const NeighborhoodArrays& a)
      : gpu_(gpu),
        p_(p),
        a_(a),
        q_(upload(a.q)),
        k_(upload(a.k)),
        v_(upload(a.v)),
        out_(blank(a.q.size() / static_cast<size_t>(p.dim) * static_cast<size_t>(p.dim_v))),
        extra_k_(upload(a.extra_k)),
        extra_v_(upload(a.extra_v)),
        rpb_(floats(a.rpb)),
        lse_(Twin(gpu, DType::F32, a.q.size() / static_cast<size_t>(p.dim))) {
    p_.q = lattice_rows(p, q_.at(Side::Device), p.heads_q, p.dim), p_.k = lattice_rows(p, k_.at(Side::Device), p.heads_kv, p.dim);
    p_.v = lattice_rows(p, v_.at(Side::Device), p.heads_kv, p.dim_v), p_.out = lattice_rows(p, out_.at(Side::Device), p.heads_q, p.dim_v);
    p_.lse = lse_.at<float>(Side::Device);
    if (p.extra)
      p_.extra_k = extra_rows(p, extra_k_.at(Side::Device), p.dim), p_.extra_v = extra_rows(p, extra_v_.at(Side::Device), p.dim_v);
    if (!a.rpb.empty()) p_.rpb = rpb_.at<float>(Side::Device);
  }

  // Errors of out and lse; of every `every` queries one.
  void forward(Report& report, const std::string& name, const std::string& what, int64_t every = 1) {
    if (const char* reason = cuda::neighborhood_refusal(p_)) return report.refused(name, reason);
    gpu_.run([&](cuda::Stream& stream) { cuda::neighborhood(p_, stream); });
    const std::vector<double> first = out_.on_device();
    report.add(name, error(first, a_.out, 0, p_.dim_v, every), tolerance_of(p_.dtype), what);
    report.add(name + " lse", error(lse_.on_device(), a_.lse, 1, 1, every), p_.dtype == DType::BF16 ? 3e-4 : 2e-5, what);
    gpu_.run([&](cuda::Stream& stream) { cuda::neighborhood(p_, stream); });
    report.add(name + " twice", first == out_.on_device() ? 0 : INFINITY, 0, what);
  }

  // After forward(): the errors of all gradients.
  void backward(Report& report, const std::string& name, const std::string& what) {
    const DType dtype = p_.dtype;
    Twin dout = upload(a_.dout), dlse = floats(a_.dlse), dq = blank(a_.q.size()), dk = blank(a_.k.size()), dv = blank(a_.v.size());
    Twin dextra_k = blank(a_.extra_k.size()), dextra_v = blank(a_.extra_v.size()), drpb = Twin(gpu_, DType::F32, a_.rpb.size());
    NeighborhoodGrads g;
    g.dout = lattice_rows(p_, dout.at(Side::Device), p_.heads_q, p_.dim_v);
    if (!a_.dlse.empty()) g.dlse = dlse.at<float>(Side::Device);
    g.dq = lattice_rows(p_, dq.at(Side::Device), p_.heads_q, p_.dim), g.dk = lattice_rows(p_, dk.at(Side::Device), p_.heads_kv, p_.dim);
    g.dv = lattice_rows(p_, dv.at(Side::Device), p_.heads_kv, p_.dim_v);
    if (p_.extra)
      g.dextra_k = extra_rows(p_, dextra_k.at(Side::Device), p_.dim), g.dextra_v = extra_rows(p_, dextra_v.at(Side::Device), p_.dim_v);
    if (!a_.rpb.empty()) g.drpb = drpb.at<float>(Side::Device);
    if (const char* reason = cuda::neighborhood_backward_refusal(p_, g)) return report.refused(name, reason);
    const auto run = [&] {
      gpu_.run([&](cuda::Stream& stream) { cuda::neighborhood_backward(p_, g, stream); });
      return std::vector{dq.on_device(), dk.on_device(), dv.on_device(), drpb.on_device(), dextra_k.on_device(), dextra_v.on_device()};
    };
    const auto first = run();
    report.add(name + " twice", first == run() ? 0 : INFINITY, 0, what);
    const auto add = [&](const char* part, const Twin& got, const std::vector<double>& want) {
      if (!want.empty()) report.add(name + " " + part, error(got.on_device(), want, kFloor, 1, 1), tolerance_of(dtype), what);
    };
    add("dq", dq, a_.dq), add("dk", dk, a_.dk), add("dv", dv, a_.dv), add("drpb", drpb, a_.drpb);
    add("dextra_k", dextra_k, a_.dextra_k), add("dextra_v", dextra_v, a_.dextra_v);
  }

 private:
  static constexpr double kFloor = 1e-3;  // gradients may be small without meaning

  Twin upload(const std::vector<double>& x) {
    return Twin(gpu_, p_.dtype, x.size(), [&](size_t i) { return x[i]; });
  }
  Twin floats(const std::vector<double>& x) {
    return Twin(gpu_, DType::F32, x.size(), [&](size_t i) { return x[i]; });
  }
  Twin blank(size_t count) { return Twin(gpu_, p_.dtype, count); }

  static double error(const std::vector<double>& got, const std::vector<double>& want, double floor, int64_t width, int64_t every) {
    double worst = 0, high = floor;
    for (size_t i = 0; i < want.size(); i++) {
      if (static_cast<int64_t>(i) / width % every != 0) continue;
      high = std::max(high, std::fabs(want[i]));
      const double difference = std::fabs(got[i] - want[i]);
      worst = std::max(worst, std::isfinite(difference) ? difference : INFINITY);
    }
    return worst == 0 ? 0 : worst / high;
  }

  Gpu& gpu_;
  NeighborhoodParams p_;
  const NeighborhoodArrays& a_;
  Twin q_, k_, v_, out_, extra_k_, extra_v_, rpb_, lse_;
};

}  // namespace fovea::gpu
