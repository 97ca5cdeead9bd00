// layerNorm and rmsNorm over the trailing axes, as rows of `width` elements.
#include "cpu/layer_norm.h"

#include "core/op.h"
#include "core/stream.h"
#include "cuda/layer_norm.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/dtypes.h"

namespace fovea {
namespace {

// A parameter of the width of a row, as f32, bf16 or f16.
std::optional<Tensor> row_parameter(const char* op, const char* name, const std::optional<Tensor>& t, int64_t width) {
  if (!t) return t;
  check_float(op, *t);
  check(t->count() == width, "ERR_SHAPE", op, ": ", name, " has shape ", text_of(t->shape), ", expected ", width, " elements");
  return contiguous(*t);
}

const void* data_or_null(const std::optional<Tensor>& t) { return t ? t->data() : nullptr; }

struct Width {
  const char* op;
  int64_t rows, width;
  Width(const char* op_name, const Tensor& x, int64_t axes) : op(op_name), rows(1), width(1) {
    check(axes >= 1 && axes <= x.rank(), "ERR_SHAPE", op, ": cannot normalise ", axes, " trailing axes of shape ", text_of(x.shape));
    for (int i = 0; i < x.rank(); i++) (i < x.rank() - axes ? rows : width) *= x.shape[i];
  }
};

// [out, mean, rstd]; mean is null for RMS norm.
std::vector<Tensor> norm(const Tensor& input, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias, double eps,
                         int64_t axes, bool centered) {
  const Width w(centered ? "layerNorm" : "rmsNorm", input, axes);
  check_float(w.op, input);
  const Tensor absent;
  const Device device = common_device(w.op, {&input, weight ? &*weight : &absent, bias ? &*bias : &absent});
  Tensor x = contiguous(input);
  auto scale = row_parameter(w.op, "weight", weight, w.width), shift = row_parameter(w.op, "bias", bias, w.width);
  check(!scale || !shift || scale->dtype == shift->dtype, "ERR_DTYPE", w.op, ": weight and bias have different dtypes");
  Tensor out = Tensor::empty(input.shape, input.dtype, device), rstd = Tensor::empty({w.rows}, DType::F32, device), mean;
  if (centered) mean = Tensor::empty({w.rows}, DType::F32, device);

  cpu::NormParams p{};
  p.rows = w.rows;
  p.width = w.width;
  p.dtype = x.dtype;
  p.weight_dtype = scale ? scale->dtype : shift ? shift->dtype : DType::F32;
  p.x = x.data();
  p.weight = data_or_null(scale);
  p.bias = data_or_null(shift);
  p.out = out.data();
  p.mean = centered ? mean.data<float>() : nullptr;
  p.rstd = rstd.data<float>();
  p.eps = static_cast<float>(eps);
  Storage* reads[] = {x.storage.get(), (scale ? *scale : x).storage.get(), (shift ? *shift : x).storage.get()};
  Storage* writes[] = {out.storage.get(), rstd.storage.get(), (centered ? mean : rstd).storage.get()};
  launch_spans(
      w.op, device, reads, 3, writes, 3, false,
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::norm<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::norm(p, stream); });
  return {out, mean, rstd};
}

// [gradX, gradWeight, gradBias], null where not wanted; the gradients of weight and bias are contiguous in their shapes.
std::vector<Tensor> norm_backward(const Tensor& grad_out, const Tensor& input, const std::optional<Tensor>& mean, const Tensor& rstd,
                                  const std::optional<Tensor>& weight, const std::optional<Tensor>& bias, int64_t axes, bool want_x,
                                  bool want_weight, bool want_bias) {
  const Width w(mean ? "layerNorm" : "rmsNorm", input, axes);
  const Device device = common_device(w.op, {&grad_out, &input, &rstd});
  Tensor x = contiguous(input), grad = contiguous(grad_out);
  if (grad.dtype != x.dtype) grad = copy_as(grad, x.dtype);
  auto scale = row_parameter(w.op, "weight", weight, w.width);
  Tensor grad_x, grad_weight, grad_bias, partial;
  std::vector<Storage*> writes;
  if (want_x) writes.push_back((grad_x = Tensor::empty(input.shape, input.dtype, device)).storage.get());
  if (want_weight) writes.push_back((grad_weight = Tensor::empty(weight->shape, weight->dtype, device)).storage.get());
  if (want_bias) writes.push_back((grad_bias = Tensor::empty(bias->shape, bias->dtype, device)).storage.get());
  bool columns = want_weight || want_bias;
  if (columns)
    writes.push_back((partial = Tensor::empty({cpu::norm_partial_floats(w.rows, w.width) + 1}, DType::F32, device)).storage.get());

  cpu::NormBackwardParams p{};
  p.rows = w.rows;
  p.width = w.width;
  p.dtype = x.dtype;
  p.weight_dtype = weight ? weight->dtype : bias ? bias->dtype : DType::F32;
  p.x = x.data();
  p.weight = data_or_null(scale);
  p.grad = grad.data();
  p.mean = mean ? mean->data<float>() : nullptr;
  p.rstd = rstd.data<float>();
  p.grad_x = want_x ? grad_x.data() : nullptr;
  p.grad_weight = want_weight ? grad_weight.data() : nullptr;
  p.grad_bias = want_bias ? grad_bias.data() : nullptr;
  p.partial = columns ? partial.data<float>() : nullptr;
  Storage* reads[] = {x.storage.get(), grad.storage.get(), rstd.storage.get(), (mean ? *mean : rstd).storage.get(),
                      (scale ? *scale : x).storage.get()};
  launch_spans(
      w.op, device, reads, 5, writes.data(), writes.size(), false,
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::norm_backward<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::norm_backward(p, stream); });
  return {grad_x, grad_weight, grad_bias};
}

const RegisterOp<&norm> norm_registration{"norm"};
const RegisterOp<&norm_backward> norm_backward_registration{"normBackward"};

}  // namespace
}  // namespace fovea
