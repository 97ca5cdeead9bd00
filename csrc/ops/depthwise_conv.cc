// Depth-wise convolution of images [batch, height, width, channels] and its gradients.
//
//   depthwiseConv(x, weight [channels, 1, rows, columns], bias or null, flipped) -> y
//   depthwiseConvWeight(x, y_grad, rows, columns) -> weight gradient, f32
#include "cpu/depthwise_conv.h"

#include "core/error.h"
#include "core/op.h"
#include "core/stream.h"
#include "cuda/depthwise_conv.h"
#include "ops/copy.h"
#include "ops/device.h"

namespace fovea {
namespace {

constexpr const char* kOp = "depthwiseConv";

// Images with neighbouring channels are read in place.
Tensor channels_last(const Tensor& t) { return t.shape[3] == 1 || t.strides[3] == 1 ? t : contiguous(t); }

DepthwiseConvShape shape_of(const Tensor& x, int64_t rows, int64_t columns) {
  const Dims& s = x.shape;
  return {x.dtype, s[0], s[1], s[2], s[3], rows, columns, x.data(), x.strides[0], x.strides[1], x.strides[2]};
}

void check_image(const Tensor& x) {
  check(x.rank() == 4, "ERR_SHAPE", kOp, ": x has shape ", text_of(x.shape), ", expected [batch, height, width, channels]");
  check(x.dtype == DType::F32 || x.dtype == DType::BF16 || x.dtype == DType::F16, "ERR_DTYPE", kOp, ": x is ", name_of(x.dtype),
        ", expected f32, bf16 or f16");
}

Tensor depthwise_conv(const Tensor& x_in, const Tensor& weight_in, const std::optional<Tensor>& bias_in, bool flipped) {
  check_image(x_in);
  const Dims& w = weight_in.shape;
  check(w.rank == 4 && w[0] == x_in.shape[3] && w[1] == 1 && w[2] % 2 == 1 && w[3] % 2 == 1, "ERR_SHAPE", kOp, ": weight has shape ",
        text_of(w), ", expected [", x_in.shape[3], ", 1, odd, odd] for x ", text_of(x_in.shape));
  check(weight_in.dtype == x_in.dtype, "ERR_DTYPE", kOp, ": x is ", name_of(x_in.dtype), ", weight ", name_of(weight_in.dtype));
  Tensor x = channels_last(x_in), weight = contiguous(weight_in), bias;
  if (bias_in) {
    check(bias_in->rank() == 1 && bias_in->shape[0] == x.shape[3] && bias_in->dtype == x.dtype, "ERR_SHAPE", kOp, ": bias has shape ",
          text_of(bias_in->shape), " of ", name_of(bias_in->dtype), ", expected [", x.shape[3], "] of ", name_of(x.dtype));
    bias = contiguous(*bias_in);
  }
  const Device device = common_device(kOp, {&x, &weight, &bias});
  Tensor y = Tensor::empty(x.shape, x.dtype, device);
  const DepthwiseConvParams p{shape_of(x, w[2], w[3]), weight.data(), bias.storage ? bias.data() : nullptr, flipped, y.data()};
  Storage* reads[] = {x.storage.get(), weight.storage.get(), bias.storage.get()};
  Storage* writes[] = {y.storage.get()};
  if (y.count() > 0)
    launch_spans(
        kOp, device, reads, bias.storage ? 3 : 2, writes, 1, false,
        [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::depthwise_conv<isa()>(p, ctx.pool); }); },
        [p](cuda::Stream& stream) { cuda::depthwise_conv(p, stream); });
  return y;
}

Tensor depthwise_conv_weight(const Tensor& x_in, const Tensor& grad_in, int64_t rows, int64_t columns) {
  check_image(x_in);
  check(grad_in.shape == x_in.shape && grad_in.dtype == x_in.dtype, "ERR_SHAPE", kOp, ": gradient has shape ", text_of(grad_in.shape),
        ", expected ", text_of(x_in.shape));
  check(rows > 0 && columns > 0 && rows % 2 == 1 && columns % 2 == 1, "ERR_ARGUMENT", kOp, ": filter of ", rows, " x ", columns,
        ", expected odd sizes");
  Tensor x = channels_last(x_in), grad = contiguous(grad_in);
  const Device device = common_device(kOp, {&x, &grad});
  Tensor out = Tensor::empty({x.shape[3], 1, rows, columns}, DType::F32, device);
  const DepthwiseConvWeightParams p{shape_of(x, rows, columns), grad.data(), out.data<float>()};
  if (out.count() > 0)
    launch(
        kOp, device, {x.storage.get(), grad.storage.get()}, {out.storage.get()},
        [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::depthwise_conv_weight<isa()>(p, ctx.pool); }); },
        [p](cuda::Stream& stream) { cuda::depthwise_conv_weight(p, stream); });
  return out;
}

const RegisterOp<&depthwise_conv> registration{"depthwiseConv"};
const RegisterOp<&depthwise_conv_weight> weight_registration{"depthwiseConvWeight"};

}  // namespace
}  // namespace fovea
