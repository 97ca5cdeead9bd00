// Joining and placing: concat, padding with a constant, and the gradient of a slice. Each is a fill where needed and strided copies into
// views of the output.
#include "core/op.h"
#include "core/stream.h"
#include "cuda/convert.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/dtypes.h"
#include "ops/fill.h"

namespace fovea {
namespace {

Tensor concat(const std::vector<Tensor>& parts, int64_t axis_in) {
  check(!parts.empty(), "ERR_ARGUMENT", "concat: no tensors given");
  const Tensor& first = parts[0];
  int axis = normalize_axis("concat", axis_in, first.rank());
  Dims shape = first.shape;
  shape[axis] = 0;
  for (const Tensor& t : parts) {
    Dims expected = first.shape;
    if (t.rank() == first.rank()) expected[axis] = t.shape[axis];
    check(t.shape == expected, "ERR_SHAPE", "concat: shapes ", text_of(first.shape), " and ", text_of(t.shape),
          " differ in another axis than ", axis);
    check(t.dtype == first.dtype, "ERR_DTYPE", "concat: dtypes ", name_of(first.dtype), " and ", name_of(t.dtype), " differ; cast first");
    shape[axis] += t.shape[axis];
  }
  for (const Tensor& t : parts) common_device("concat", {&first, &t});
  Tensor out = Tensor::empty(shape, first.dtype, first.device());
  std::vector<cpu::CopyParams> copies;
  std::vector<Storage*> reads;
  Tensor window = out;
  for (const Tensor& t : parts) {
    window.shape = t.shape;
    if (t.count() > 0) copies.push_back(copy_params(t, window));
    window.offset += t.shape[axis] * out.strides[axis];
    reads.push_back(t.storage.get());
  }
  Storage* writes[] = {out.storage.get()};
  launch_spans(
      "concat", out.device(), reads.data(), reads.size(), writes, 1, false,
      [copies](const TaskContext& ctx) {
        for (const cpu::CopyParams& p : copies) run_copy(ctx, p);
      },
      [copies](cuda::Stream& stream) {
        for (const cpu::CopyParams& p : copies) cuda::convert(p, stream);
      });
  return out;
}

// `value` everywhere but in the window of `out` that starts at element `offset`, has strides `steps` and the shape of t.
Tensor place(const char* op, const Tensor& t, const Dims& shape, int64_t offset, const Dims& steps, double value) {
  Tensor out = Tensor::empty(shape, t.dtype, t.device()), window = out.view(t.shape, steps, offset);
  bool covered = t.count() == out.count(), empty = t.count() == 0;
  launch(
      op, out.device(), {t.storage.get()}, {out.storage.get()},
      [fill = FillTask(out, value), copy = copy_params(t, window), covered, empty](const TaskContext& ctx) {
        if (!covered) run_fill(ctx, fill);
        if (!empty) run_copy(ctx, copy);
      },
      [fill = FillTask(out, value), copy = copy_params(t, window), covered, empty](cuda::Stream& stream) {
        if (!covered) run_fill(stream, fill);
        if (!empty) cuda::convert(copy, stream);
      });
  return out;
}

Tensor pad(const Tensor& t, const Dims& before, const Dims& after, double value) {
  check(before.rank == t.rank() && after.rank == t.rank(), "ERR_SHAPE", "pad: ", before.rank, " pairs for shape ", text_of(t.shape));
  Dims shape = t.shape;
  for (int i = 0; i < t.rank(); i++) shape[i] += before[i] + after[i];
  Dims steps = contiguous_strides(shape);
  int64_t offset = 0;
  for (int i = 0; i < t.rank(); i++) offset += before[i] * steps[i];
  return place("pad", t, shape, offset, steps, value);
}

Tensor slice_backward(const Tensor& grad, const Dims& shape, int64_t axis, int64_t start, int64_t step) {
  Dims steps = contiguous_strides(shape);
  int64_t offset = start * steps[axis];
  steps[axis] *= step;
  return place("sliceBackward", grad, shape, grad.count() > 0 ? offset : 0, steps, 0);
}

const RegisterOp<&concat> concat_registration{"concat"};
const RegisterOp<&pad> pad_registration{"pad"};
const RegisterOp<&slice_backward> slice_registration{"sliceBackward"};

}  // namespace
}  // namespace fovea
