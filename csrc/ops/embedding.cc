// Rows by index along one axis: embedding and indexSelect, and the gradient of both.
#include "core/op.h"
#include "core/stream.h"
#include "cpu/rows.h"
#include "cuda/rows.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/dtypes.h"
#include "ops/index_error.h"

namespace fovea {
namespace {

struct Split {
  int64_t outer = 1, size, inner = 1;
  Split(const Dims& shape, int axis) : size(shape[axis]) {
    for (int i = 0; i < shape.rank; i++)
      if (i != axis) (i < axis ? outer : inner) *= shape[i];
  }
};

// shape with `axis` replaced by the axes of `ids`
Dims replaced(const Dims& shape, int axis, const Dims& ids) {
  Dims out;
  for (int i = 0; i < shape.rank; i++) {
    if (i == axis)
      for (int64_t n : ids) out.push(n);
    else out.push(shape[i]);
  }
  return out;
}

Tensor take_rows(const std::string& op, const Tensor& input, int64_t axis_in, const Tensor& ids_in) {
  check_index_dtype(op.c_str(), ids_in);
  int axis = normalize_axis(op.c_str(), axis_in, input.rank());
  const Device device = common_device(op.c_str(), {&input, &ids_in});
  Tensor t = contiguous(input), ids = contiguous(ids_in);
  Tensor out = Tensor::empty(replaced(t.shape, axis, ids.shape), t.dtype, device);
  Split split(t.shape, axis);
  cpu::GatherRowsParams p{};
  p.src = t.data();
  p.out = out.data();
  p.outer = split.outer;
  p.size = split.size;
  p.count = ids.count();
  p.row_bytes = split.inner * static_cast<int64_t>(size_of(t.dtype));
  p.ids = indices_of(ids);
  launch(
      "takeRows", device, {t.storage.get(), ids.storage.get()}, {out.storage.get()},
      [p, op, shape = ids.shape](const TaskContext& ctx) {
        int64_t bad = dispatch_isa([&](auto isa) { return cpu::gather_rows<isa()>(p, ctx.pool); });
        check_indices(op.c_str(), bad, p.ids, shape, p.size);
      },
      [p, op, shape = ids.shape](cuda::Stream& stream) {
        cuda::IndexStatus status(stream);
        cuda::gather_rows(p, status.bad(), stream);
        check_indices(op.c_str(), status, p.ids, shape, p.size);
      });
  return out;
}

// The gradient of take_rows: zeros of `shape` with the rows of grad added in.
Tensor add_rows(const std::string& op, const Tensor& grad_in, const Dims& shape, int64_t axis_in, const Tensor& ids_in) {
  check_float(op.c_str(), grad_in);
  int axis = normalize_axis(op.c_str(), axis_in, shape.rank);
  const Device device = common_device(op.c_str(), {&grad_in, &ids_in});
  Tensor grad = contiguous(grad_in), ids = contiguous(ids_in), out = Tensor::empty(shape, grad.dtype, device);
  Split split(shape, axis);
  Tensor workspace = Tensor::empty({device.is_cpu() ? split.size + 1 + ids.count() : 0}, DType::I64, device);
  cpu::AddRowsParams p{};
  p.src = grad.data();
  p.out = out.data();
  p.dtype = grad.dtype;
  p.outer = split.outer;
  p.size = split.size;
  p.count = ids.count();
  p.width = split.inner;
  p.ids = indices_of(ids);
  p.workspace = workspace.data<int64_t>();
  launch(
      "addRows", device, {grad.storage.get(), ids.storage.get()}, {out.storage.get(), workspace.storage.get()},
      [p, op, ids_shape = ids.shape](const TaskContext& ctx) {
        int64_t bad = dispatch_isa([&](auto isa) { return cpu::add_rows<isa()>(p, ctx.pool); });
        check_indices(op.c_str(), bad, p.ids, ids_shape, p.size);
      },
      [p, op, ids_shape = ids.shape](cuda::Stream& stream) {
        cuda::IndexStatus status(stream);
        cuda::add_rows(p, status.bad(), stream);
        check_indices(op.c_str(), status, p.ids, ids_shape, p.size);
      });
  return out;
}

const RegisterOp<&take_rows> take_registration{"takeRows"};
const RegisterOp<&add_rows> add_registration{"addRows"};

}  // namespace
}  // namespace fovea
