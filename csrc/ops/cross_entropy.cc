// crossEntropy of logits [rows, classes] with class indices.
#include "cpu/cross_entropy.h"

#include "core/op.h"
#include "core/stream.h"
#include "cuda/cross_entropy.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/dtypes.h"
#include "ops/index_error.h"

namespace fovea {
namespace {

constexpr const char* kName = "crossEntropy";

enum Reduction { kNone, kSum, kMean };

// [loss, lse, count]: loss [] or [rows], f32; lse [rows]; count [] is the number of rows not ignored.
CrossEntropyRows rows_of(const Tensor& logits, const Tensor& targets, double ignore, double smoothing) {
  return {logits.shape[0],
          logits.shape[1],
          logits.dtype,
          logits.data(),
          indices_of(targets),
          static_cast<int64_t>(ignore),
          static_cast<float>(smoothing)};
}

std::vector<Tensor> cross_entropy(const Tensor& logits_in, const Tensor& targets_in, double ignore, double smoothing, int64_t reduction) {
  check_float(kName, logits_in);
  check_index_dtype(kName, targets_in);
  check(logits_in.rank() == 2 && targets_in.rank() == 1 && logits_in.shape[0] == targets_in.shape[0], "ERR_SHAPE", kName, ": logits ",
        text_of(logits_in.shape), " and targets ", text_of(targets_in.shape), "; expected [N, C] and [N]");
  check(logits_in.shape[1] > 0, "ERR_SHAPE", kName, ": there are no classes in logits of shape ", text_of(logits_in.shape));
  const Device device = common_device(kName, {&logits_in, &targets_in});
  Tensor logits = contiguous(logits_in), targets = contiguous(targets_in);
  int64_t rows = logits.shape[0];
  auto scratch = [&](const Dims& shape) { return Tensor::empty(shape, DType::F32, device); };
  Tensor lse = scratch({rows}), losses = scratch({rows}), count = scratch({}), loss = reduction == kNone ? losses : scratch({});

  const cpu::CrossEntropyParams p{rows_of(logits, targets, ignore, smoothing), lse.data<float>(), losses.data<float>()};
  float *total = loss.data<float>(), *counted = count.data<float>();
  launch(
      kName, device, {logits.storage.get(), targets.storage.get()},
      {loss.storage.get(), losses.storage.get(), lse.storage.get(), count.storage.get()},
      [p, total, counted, reduction, shape = targets.shape](const TaskContext& ctx) {
        int64_t bad = dispatch_isa([&](auto isa) { return cpu::cross_entropy<isa()>(p, ctx.pool); });
        check_indices(kName, bad, p.targets, shape, p.classes);
        int64_t kept = 0;
        double sum = 0;
        for (int64_t i = 0; i < p.rows; i++) {
          kept += cpu::index_at(p.targets, i) != p.ignore;
          sum += static_cast<double>(p.losses[i]);
        }
        *counted = static_cast<float>(kept);
        if (reduction != kNone) *total = static_cast<float>(reduction == kMean ? sum / static_cast<double>(kept) : sum);
      },
      [p, total, counted, reduction, shape = targets.shape](cuda::Stream& stream) {
        cuda::IndexStatus status(stream);
        cuda::cross_entropy(p, status.bad(), stream);
        check_indices(kName, status, p.targets, shape, p.classes);
        cuda::cross_entropy_total(
            {p.rows, p.ignore, p.targets, p.losses, reduction == kNone ? nullptr : total, counted, reduction == kMean}, stream);
      });
  return {loss, lse, count};
}

Tensor cross_entropy_backward(const Tensor& grad_in, const Tensor& logits_in, const Tensor& targets_in, const Tensor& lse,
                              const Tensor& count, double ignore, double smoothing, int64_t reduction) {
  const Device device = common_device(kName, {&grad_in, &logits_in, &targets_in, &lse, &count});
  Tensor logits = contiguous(logits_in), targets = contiguous(targets_in);
  Tensor grad = grad_in.dtype == DType::F32 ? contiguous(grad_in) : copy_as(grad_in, DType::F32);
  Tensor out = Tensor::empty(logits.shape, logits.dtype, device);
  const cpu::CrossEntropyBackwardParams p{
      rows_of(logits, targets, ignore, smoothing),        lse.data<float>(), grad.data<float>(), reduction == kNone ? 1 : 0,
      reduction == kMean ? count.data<float>() : nullptr, out.data()};
  launch(
      kName, device, {grad.storage.get(), logits.storage.get(), targets.storage.get(), lse.storage.get(), count.storage.get()},
      {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::cross_entropy_backward<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::cross_entropy_backward(p, stream); });
  return out;
}

const RegisterOp<&cross_entropy> registration{"crossEntropy"};
const RegisterOp<&cross_entropy_backward> backward_registration{"crossEntropyBackward"};

}  // namespace
}  // namespace fovea
