// clusterTop(x [batch, heads, length, dim], centroids f32 [heads, clusters, dim], window) -> i32 [batch, heads, clusters, window]: the
// tokens whose direction is nearest to each centroid, in rising order.
#include "cpu/cluster_top.h"

#include "core/error.h"
#include "core/op.h"
#include "core/stream.h"
#include "cuda/cluster_top.h"
#include "ops/attention_call.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/dtypes.h"

namespace fovea {
namespace {

constexpr const char* kOp = "clusterTop";

Tensor cluster_top(const Tensor& x_in, const Tensor& centroids_in, int64_t window) {
  check_float(kOp, x_in);
  check(centroids_in.dtype == DType::F32, "ERR_DTYPE", kOp, ": centroids are ", name_of(centroids_in.dtype), ", expected f32");
  const Dims &s = x_in.shape, &c = centroids_in.shape;
  check(x_in.rank() == 4 && centroids_in.rank() == 3 && c[0] == s[1] && c[2] == s[3], "ERR_SHAPE", kOp, ": x ", text_of(s),
        " and centroids ", text_of(c), " do not fit: [batch, heads, length, dim] and [heads, clusters, dim]");
  check(window >= 0 && window <= s[2] && s[2] <= INT32_MAX, "ERR_ARGUMENT", kOp, ": window is ", window, " of ", s[2], " tokens");
  Tensor x = s[3] == 1 || x_in.strides[3] == 1 ? x_in : contiguous(x_in), centroids = contiguous(centroids_in);
  const Device device = common_device(kOp, {&x, &centroids});
  Tensor out = Tensor::empty({s[0], s[1], c[1], window}, DType::I32, device);
  if (out.count() == 0) return out;
  ClusterTopParams p{};
  p.dtype = x.dtype;
  p.batch = s[0], p.heads = s[1], p.length = s[2], p.clusters = c[1], p.dim = s[3], p.window = window;
  p.x = attention_tensor(x);
  p.centroids = centroids.data<float>();
  p.indices = out.data<int32_t>();
  launch(
      kOp, device, {x.storage.get(), centroids.storage.get()}, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::cluster_top<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::cluster_top(p, stream); });
  return out;
}

const RegisterOp<&cluster_top> registration{"clusterTop"};

}  // namespace
}  // namespace fovea
