// where(condition, a, b): elements of a where the condition holds, of b elsewhere; either may be a number.
#include "core/op.h"
#include "core/stream.h"
#include "cuda/elementwise.h"
#include "ops/device.h"
#include "ops/elementwise.h"

namespace fovea {
namespace {

DType result_type(const std::optional<Tensor>& a, double a_number, const std::optional<Tensor>& b, double b_number) {
  if (a && b) return promote(a->dtype, b->dtype);
  if (a) return promote_number(a->dtype, b_number);
  if (b) return promote_number(b->dtype, a_number);
  return DType::F32;
}

// `a_number` counts when `a` is absent, and so for b.
Tensor where(const Tensor& condition, const std::optional<Tensor>& a, double a_number, const std::optional<Tensor>& b, double b_number) {
  check(condition.dtype == DType::Bool, "ERR_DTYPE", "where: the condition is ", name_of(condition.dtype),
        ", expected bool; compare first, for instance ne(t, 0)");
  Dims shape = condition.shape;
  if (a) shape = broadcast_shape("where", shape, a->shape);
  if (b) shape = broadcast_shape("where", shape, b->shape);
  const DType dtype = result_type(a, a_number, b, b_number);
  const Tensor absent;
  const Tensor &x = a ? *a : absent, &y = b ? *b : absent;
  const Device device = common_device("where", {&condition, &x, &y});
  Tensor out = Tensor::empty(shape, dtype, device);
  cpu::ElementwiseParams p = elementwise_params(0, arithmetic_type(dtype), {&condition, &x, &y}, out);
  p.scalars[1] = a_number;
  p.scalars[2] = b_number;
  Storage* reads[3] = {condition.storage.get()};
  size_t n_reads = 1;
  if (a) reads[n_reads++] = x.storage.get();
  if (b) reads[n_reads++] = y.storage.get();
  Storage* writes[] = {out.storage.get()};
  launch_spans(
      "where", device, reads, n_reads, writes, 1, false,
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::where<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::where(p, stream); });
  return out;
}

const RegisterOp<&where> where_registration{"where"};

}  // namespace
}  // namespace fovea
