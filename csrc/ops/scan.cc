// Running sums along one axis.
#include "cpu/scan.h"

#include "core/op.h"
#include "cuda/scan.h"
#include "ops/copy.h"
#include "ops/device.h"

namespace fovea {
namespace {

Tensor cumsum(const Tensor& t, int64_t axis, bool reverse) {
  const int at = normalize_axis("cumsum", axis, t.rank());
  const Tensor x = contiguous(t);
  Tensor out = Tensor::empty(t.shape, is_floating(t.dtype) ? t.dtype : DType::I64, t.device());
  cpu::ScanParams p{};
  p.in = x.data();
  p.out = out.data();
  p.in_dtype = x.dtype;
  p.out_dtype = out.dtype;
  p.reverse = reverse;
  p.outer = p.inner = 1;
  for (int i = 0; i < at; i++) p.outer *= x.shape[i];
  p.length = x.shape[at];
  for (int i = at + 1; i < x.rank(); i++) p.inner *= x.shape[i];
  if (out.count() > 0)
    launch(
        "cumsum", out.device(), {x.storage.get()}, {out.storage.get()},
        [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::cumsum<isa()>(p, ctx.pool); }); },
        [p](cuda::Stream& stream) { cuda::cumsum(p, stream); });
  return out;
}

const RegisterOp<&cumsum> cumsum_registration{"cumsum"};

}  // namespace
}  // namespace fovea
