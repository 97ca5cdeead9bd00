// linear: x w^T + bias and an activation in one kernel, and the gradient of that activation.
#include "cpu/linear.h"

#include "core/op.h"
#include "cuda/linear.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/matmul.h"

namespace fovea {
namespace {

cpu::Activation activation_of(int64_t code) {
  check(code >= 0 && code <= static_cast<int64_t>(cpu::Activation::Silu), "ERR_ARGUMENT", "linear: unknown activation code ", code);
  return static_cast<cpu::Activation>(code);
}

// [out] or, with want_pre, [out, pre-activation].
std::vector<Tensor> linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t activation, bool want_pre,
                           int64_t precision) {
  check(weight.rank() == 2, "ERR_SHAPE", "linear: weight has shape ", text_of(weight.shape), ", expected [out, in]");
  check(x.rank() >= 1 && x.shape[x.rank() - 1] == weight.shape[1], "ERR_SHAPE", "linear: input has shape ", text_of(x.shape),
        ", expected [..., ", weight.shape[1], "] for a weight of shape ", text_of(weight.shape));
  Dims turned_shape{weight.shape[1], weight.shape[0]}, turned_strides{weight.strides[1], weight.strides[0]};
  const Tensor turned = weight.view(turned_shape, turned_strides, weight.offset);
  Tensor rows = x;
  if (x.rank() == 1) rows = x.view({1, x.shape[0]}, {0, x.strides[0]}, x.offset);
  Epilogue epilogue{bias, activation_of(activation), {}};
  Dims shape = rows.shape;
  shape[shape.rank - 1] = weight.shape[0];
  if (want_pre) epilogue.pre = Tensor::empty(shape, x.dtype, x.device());
  std::vector<Tensor> results{launch_matmul("linear", rows, turned, x.dtype, precision_of("linear", precision), epilogue)};
  if (want_pre) results.push_back(*epilogue.pre);
  if (x.rank() == 1)
    for (Tensor& t : results) t = t.view({weight.shape[0]}, {1}, t.offset);
  return results;
}

Tensor activation_grad(const Tensor& grad, const Tensor& pre, int64_t activation) {
  check(grad.shape == pre.shape && grad.dtype == pre.dtype && is_floating(grad.dtype), "ERR_SHAPE", "activationGrad: gradient ",
        text_of(grad.shape), " and saved ", text_of(pre.shape), " differ");
  const Device device = common_device("activationGrad", {&grad, &pre});
  const Tensor g = contiguous(grad), z = contiguous(pre);
  Tensor out = Tensor::empty(g.shape, g.dtype, device);
  cpu::ActivationGradParams p{g.dtype, activation_of(activation), g.count(), g.data(), z.data(), out.data()};
  launch(
      "activationGrad", device, {g.storage.get(), z.storage.get()}, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::activation_grad<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::activation_grad(p, stream); });
  return out;
}

const RegisterOp<&linear> linear_registration{"linear"};
const RegisterOp<&activation_grad> activation_grad_registration{"activationGrad"};

}  // namespace
}  // namespace fovea
