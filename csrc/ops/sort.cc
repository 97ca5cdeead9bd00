// sort and topK along one axis.
#include "cpu/sort.h"

#include <utility>

#include "core/op.h"
#include "core/stream.h"
#include "cuda/sort.h"
#include "ops/copy.h"
#include "ops/device.h"

namespace fovea {
namespace {

Tensor with_axis_last(const Tensor& t, int axis) {
  Tensor view = t;
  for (int i = axis; i + 1 < t.rank(); i++) {
    std::swap(view.shape[i], view.shape[i + 1]);
    std::swap(view.strides[i], view.strides[i + 1]);
  }
  return view;
}

Tensor with_last_at(const Tensor& t, int axis) {
  Tensor view = t;
  for (int i = t.rank() - 1; i > axis; i--) {
    std::swap(view.shape[i], view.shape[i - 1]);
    std::swap(view.strides[i], view.strides[i - 1]);
  }
  return view;
}

// [values, indices (i32)]: the first k along the axis in the order asked for; k = -1: all.
std::vector<Tensor> sort(const Tensor& t, int64_t axis_in, int64_t k_in, bool descending) {
  const char* op = k_in < 0 ? "sort" : "topK";
  int axis = normalize_axis(op, axis_in, t.rank());
  int64_t n = t.shape[axis], k = k_in < 0 ? n : k_in;
  check(k <= n, "ERR_ARGUMENT", op, ": k is ", k, ", axis ", axis, " of ", text_of(t.shape), " has ", n, " elements");
  check(n <= INT32_MAX, "ERR_SHAPE", op, ": an axis of ", n, " elements is too long; at most 2^31 - 1");
  Tensor x = contiguous(with_axis_last(t, axis));
  Dims dims = x.shape;
  dims[x.rank() - 1] = k;
  Tensor values = Tensor::empty(dims, t.dtype, t.device()), indices = Tensor::empty(dims, DType::I32, t.device());
  cpu::SortParams p{};
  p.x = x.data();
  p.dtype = x.dtype;
  p.rows = n > 0 ? x.count() / n : 0;
  p.n = n;
  p.k = k;
  p.descending = descending;
  p.values = values.data();
  p.indices = indices.data<int32_t>();
  launch(
      op, t.device(), {x.storage.get()}, {values.storage.get(), indices.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::sort<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::sort(p, stream); });
  return {with_last_at(values, axis), with_last_at(indices, axis)};
}

const RegisterOp<&sort> registration{"sort"};

}  // namespace
}  // namespace fovea
