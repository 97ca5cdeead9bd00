// regionTop(q, k [batch, height, width, channels], integers = [region_height, region_width, down, across, top], scale) -> [indices i32
// [batch, down * across, top], affinities f32]: see core/region_top_params.h.
#include "cpu/region_top.h"

#include "core/error.h"
#include "core/op.h"
#include "core/stream.h"
#include "cuda/region_top.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/dtypes.h"

namespace fovea {
namespace {

constexpr const char* kOp = "regionTop";

std::vector<Tensor> region_top(const Tensor& q_in, const Tensor& k_in, const std::vector<int64_t>& n, double scale) {
  const Dims& s = q_in.shape;
  check(n.size() == 5, "ERR_ARGUMENT", kOp, ": got ", n.size(), " integers, expected 5");
  check(q_in.rank() == 4 && k_in.shape == s, "ERR_SHAPE", kOp, ": images ", text_of(s), " and ", text_of(k_in.shape),
        "; expected two of one shape [batch, height, width, channels]");
  check_float(kOp, q_in);
  check(k_in.dtype == q_in.dtype, "ERR_DTYPE", kOp, ": images are ", name_of(q_in.dtype), " and ", name_of(k_in.dtype),
        ", expected one dtype");
  // Every region has pixels, and every pixel a region.
  auto cut = [](int64_t size, int64_t step, int64_t count) {
    return step > 0 && count > 0 && (count - 1) * step < size && count * step >= size;
  };
  check(cut(s[1], n[0], n[2]) && cut(s[2], n[1], n[3]) && n[4] > 0 && n[4] <= n[2] * n[3], "ERR_ARGUMENT", kOp, ": ", n[2], " x ", n[3],
        " regions of ", n[0], " x ", n[1], " pixels, the best ", n[4], " of them, for images ", text_of(s));
  Tensor q = contiguous(q_in), k = contiguous(k_in);
  RegionTopParams p{};
  p.q = q.data(), p.k = k.data(), p.dtype = q.dtype;
  p.batch = s[0], p.height = s[1], p.width = s[2], p.channels = s[3];
  p.region_height = n[0], p.region_width = n[1], p.down = n[2], p.across = n[3], p.top = n[4];
  p.scale = static_cast<float>(scale);
  const int64_t regions = p.down * p.across;
  const Device device = common_device(kOp, {&q, &k});
  Tensor indices = Tensor::empty({s[0], regions, p.top}, DType::I32, device);
  Tensor affinities = Tensor::empty({s[0], regions, p.top}, DType::F32, device);
  Tensor means = Tensor::empty({2, s[0], regions, s[3]}, DType::F32, device);
  p.means = means.data<float>(), p.indices = indices.data<int32_t>(), p.affinities = affinities.data<float>();
  launch(
      kOp, device, {q.storage.get(), k.storage.get()}, {indices.storage.get(), affinities.storage.get(), means.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::region_top<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::region_top(p, stream); });
  return {indices, affinities};
}

const RegisterOp<&region_top> registration{"regionTop"};

}  // namespace
}  // namespace fovea
