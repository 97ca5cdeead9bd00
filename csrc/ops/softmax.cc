// Softmax and log-softmax along one axis.
#include "cpu/softmax.h"

#include "core/op.h"
#include "cuda/softmax.h"
#include "ops/copy.h"
#include "ops/device.h"

namespace fovea {
namespace {

cpu::SoftmaxParams params_of(const char* op, const Tensor& t, int64_t axis, bool log) {
  check(is_floating(t.dtype), "ERR_DTYPE", op, ": expected a floating dtype, got ", name_of(t.dtype), "; cast first");
  const int at = normalize_axis(op, axis, t.rank());
  cpu::SoftmaxParams p{};
  p.in = t.data();
  p.dtype = t.dtype;
  p.log = log;
  p.outer = p.inner = 1;
  for (int i = 0; i < at; i++) p.outer *= t.shape[i];
  p.length = t.shape[at];
  for (int i = at + 1; i < t.rank(); i++) p.inner *= t.shape[i];
  return p;
}

const char* name(bool log) { return log ? "logSoftmax" : "softmax"; }

Tensor softmax(const Tensor& t, int64_t axis, bool log) {
  const Tensor x = contiguous(t);
  cpu::SoftmaxParams p = params_of(name(log), x, axis, log);
  Tensor out = Tensor::empty(t.shape, t.dtype, t.device());
  p.out = out.data();
  if (out.count() > 0)
    launch(
        name(log), out.device(), {x.storage.get()}, {out.storage.get()},
        [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::softmax<isa()>(p, ctx.pool); }); },
        [p](cuda::Stream& stream) { cuda::softmax(p, stream); });
  return out;
}

// From the gradient and the result of softmax(t, axis, log).
Tensor softmax_backward(const Tensor& grad, const Tensor& result, int64_t axis, bool log) {
  check(grad.shape == result.shape, "ERR_INTERNAL", "softmaxBackward: shapes differ");
  const Device device = common_device("softmaxBackward", {&grad, &result});
  const Tensor y = contiguous(result), g = grad.dtype == y.dtype ? contiguous(grad) : copy_as(grad, y.dtype);
  cpu::SoftmaxParams p = params_of(name(log), y, axis, log);
  Tensor out = Tensor::empty(y.shape, y.dtype, device);
  p.grad = g.data();
  p.out = out.data();
  if (out.count() > 0)
    launch(
        "softmaxBackward", device, {y.storage.get(), g.storage.get()}, {out.storage.get()},
        [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::softmax_backward<isa()>(p, ctx.pool); }); },
        [p](cuda::Stream& stream) { cuda::softmax_backward(p, stream); });
  return out;
}

const RegisterOp<&softmax> softmax_registration{"softmax"};
const RegisterOp<&softmax_backward> softmax_backward_registration{"softmaxBackward"};

}  // namespace
}  // namespace fovea
