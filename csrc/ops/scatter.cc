// gather, scatter, scatterAdd and scatterMean along one axis. The index has the rank of the tensor; off the axis its sizes are those of the
// tensor or 1.
#include "cpu/scatter.h"

#include "core/op.h"
#include "core/stream.h"
#include "cuda/scatter.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/dtypes.h"
#include "ops/fill.h"
#include "ops/index_error.h"

namespace fovea {
namespace {

// The index as kernels take it; `tensor` is what keeps its memory.
struct Indexed {
  cpu::IndexedShape shape{};
  Tensor tensor;
  Dims index_dims;  // of `tensor`, for positions in messages
  Dims out_dims;    // of a gather's result or a scatter's source

  Indexed(const char* op, const Dims& t, int axis, const Tensor& index) {
    check_index_dtype(op, index);
    check(index.rank() == t.rank, "ERR_SHAPE", op, ": index ", text_of(index.shape), " and tensor ", text_of(t), " differ in rank");
    shape.outer = shape.inner = 1;
    Dims wanted = t;
    bool rows = true;  // one index for all that follows the axis
    for (int i = 0; i < t.rank; i++) {
      if (i == axis) continue;
      check(index.shape[i] == t[i] || index.shape[i] == 1, "ERR_SHAPE", op, ": index ", text_of(index.shape), " does not fit ", text_of(t),
            " at axis ", i, "; off axis ", axis, " its sizes must be equal or 1");
      (i < axis ? shape.outer : shape.inner) *= t[i];
      if (i > axis && index.shape[i] != 1 && index.strides[i] != 0) rows = false;
    }
    wanted[axis] = index.shape[axis];
    out_dims = wanted;
    Tensor view = index;
    if (rows)
      for (int i = axis + 1; i < t.rank; i++) wanted[i] = view.shape[i] = 1;
    tensor = contiguous(view.broadcast_to(wanted));
    index_dims = wanted;
    shape.size = t[axis];
    shape.count = wanted[axis];
    shape.index_inner = rows ? 1 : shape.inner;
    shape.index = indices_of(tensor);
    if (out_dims.product() == 0) shape.outer = 0;
  }
};

Tensor gather(const Tensor& t_in, int64_t axis_in, const Tensor& index) {
  constexpr const char* op = "gather";
  int axis = normalize_axis(op, axis_in, t_in.rank());
  Indexed x(op, t_in.shape, axis, index);
  const Device device = common_device(op, {&t_in, &index});
  Tensor t = contiguous(t_in), out = Tensor::empty(x.out_dims, t.dtype, device);
  cpu::GatherParams p{x.shape, t.data(), out.data(), static_cast<int>(size_of(t.dtype))};
  launch(
      op, device, {t.storage.get(), x.tensor.storage.get()}, {out.storage.get()},
      [p, dims = x.index_dims](const TaskContext& ctx) {
        int64_t bad = dispatch_isa([&](auto isa) { return cpu::gather<isa()>(p, ctx.pool); });
        check_indices(op, bad, p.shape.index, dims, p.shape.size);
      },
      [p, dims = x.index_dims](cuda::Stream& stream) {
        cuda::IndexStatus status(stream);
        cuda::gather(p, status.bad(), stream);
        check_indices(op, status, p.shape.index, dims, p.shape.size);
      });
  return out;
}

Tensor expanded(const char* op, const Tensor& src, const Dims& dims) {
  check(src.rank() <= dims.rank, "ERR_SHAPE", op, ": source ", text_of(src.shape), " does not broadcast to the index, ", text_of(dims));
  return contiguous(src.broadcast_to(dims));
}

Tensor scatter(const Tensor& t, int64_t axis_in, const Tensor& index, const Tensor& src_in) {
  constexpr const char* op = "scatter";
  int axis = normalize_axis(op, axis_in, t.rank());
  check(t.dtype == src_in.dtype, "ERR_DTYPE", op, ": tensor is ", name_of(t.dtype), ", source ", name_of(src_in.dtype), "; cast first");
  Indexed x(op, t.shape, axis, index);
  const Device device = common_device(op, {&t, &index, &src_in});
  Tensor src = expanded(op, src_in, x.out_dims), out = copy_as(t, t.dtype);
  cpu::ScatterParams p{x.shape, src.data(), out.data(), static_cast<int>(size_of(t.dtype))};
  launch(
      op, device, {src.storage.get(), x.tensor.storage.get(), out.storage.get()}, {out.storage.get()},
      [p, dims = x.index_dims](const TaskContext& ctx) {
        int64_t bad = dispatch_isa([&](auto isa) { return cpu::scatter<isa()>(p, ctx.pool); });
        check_indices(op, bad, p.shape.index, dims, p.shape.size);
      },
      [p, dims = x.index_dims](cuda::Stream& stream) {
        cuda::IndexStatus status(stream);
        cuda::scatter(p, status.bad(), stream);
        check_indices(op, status, p.shape.index, dims, p.shape.size);
      });
  return out;
}

Tensor scatter_add(const Tensor& t, int64_t axis_in, const Tensor& index, const Tensor& src_in) {
  constexpr const char* op = "scatterAdd";
  int axis = normalize_axis(op, axis_in, t.rank());
  check_float(op, t);
  check_float(op, src_in);
  Indexed x(op, t.shape, axis, index);
  const Device device = common_device(op, {&t, &index, &src_in});
  Tensor src = expanded(op, src_in, x.out_dims), out = copy_as(t, DType::F32);
  cpu::ScatterAddParams p{x.shape, src.data(), src.dtype, out.data<float>(), nullptr};
  launch(
      op, device, {src.storage.get(), x.tensor.storage.get(), out.storage.get()}, {out.storage.get()},
      [p, dims = x.index_dims](const TaskContext& ctx) {
        int64_t bad = dispatch_isa([&](auto isa) { return cpu::scatter_add<isa()>(p, ctx.pool); });
        check_indices(op, bad, p.shape.index, dims, p.shape.size);
      },
      [p, dims = x.index_dims](cuda::Stream& stream) {
        cuda::IndexStatus status(stream);
        cuda::scatter_add(p, status.bad(), stream);
        check_indices(op, status, p.shape.index, dims, p.shape.size);
      });
  return t.dtype == DType::F32 ? out : copy_as(out, t.dtype);
}

// [means, counts]: means has `size` along the axis; counts (at least 1) is f32 and broadcasts to means.
std::vector<Tensor> scatter_mean(const Tensor& src_in, int64_t axis_in, const Tensor& index, int64_t size) {
  constexpr const char* op = "scatterMean";
  int axis = normalize_axis(op, axis_in, src_in.rank());
  check_float(op, src_in);
  check(size >= 0, "ERR_ARGUMENT", op, ": size ", size, " is negative");
  check(index.rank() == src_in.rank() && index.shape[axis] == src_in.shape[axis], "ERR_SHAPE", op, ": index ", text_of(index.shape),
        " does not fit the source ", text_of(src_in.shape));
  Dims dims = src_in.shape;
  dims[axis] = size;
  Indexed x(op, dims, axis, index);
  Dims count_dims = x.index_dims;
  count_dims[axis] = size;
  const Device device = common_device(op, {&src_in, &index});
  Tensor src = contiguous(src_in), out = Tensor::empty(dims, DType::F32, device), counts = Tensor::empty(count_dims, DType::F32, device);
  cpu::ScatterAddParams p{x.shape, src.data(), src.dtype, out.data<float>(), counts.data<float>()};
  cpu::DivideCountsParams d{x.shape.index_inner > 0 ? count_dims.product() / x.shape.index_inner : 0, x.shape.inner, x.shape.index_inner,
                            p.out, p.counts};
  launch(
      op, device, {src.storage.get(), x.tensor.storage.get()}, {out.storage.get(), counts.storage.get()},
      [p, d, index_dims = x.index_dims, zero_out = FillTask(out, 0), zero_counts = FillTask(counts, 0)](const TaskContext& ctx) {
        run_fill(ctx, zero_out);
        run_fill(ctx, zero_counts);
        int64_t bad = dispatch_isa([&](auto isa) { return cpu::scatter_add<isa()>(p, ctx.pool); });
        check_indices(op, bad, p.shape.index, index_dims, p.shape.size);
        dispatch_isa([&](auto isa) { cpu::divide_counts<isa()>(d, ctx.pool); });
      },
      [p, d, index_dims = x.index_dims, sums = out.count(), means = counts.count()](cuda::Stream& stream) {
        stream.fill(p.out, 0, sizeof(float), static_cast<size_t>(sums));
        stream.fill(p.counts, 0, sizeof(float), static_cast<size_t>(means));
        cuda::IndexStatus status(stream);
        cuda::scatter_add(p, status.bad(), stream);
        check_indices(op, status, p.shape.index, index_dims, p.shape.size);
        cuda::divide_counts(d, stream);
      });
  return {src.dtype == DType::F32 ? out : copy_as(out, src.dtype), counts};
}

const RegisterOp<&gather> gather_registration{"gather"};
const RegisterOp<&scatter> scatter_registration{"scatter"};
const RegisterOp<&scatter_add> scatter_add_registration{"scatterAdd"};
const RegisterOp<&scatter_mean> scatter_mean_registration{"scatterMean"};

}  // namespace
}  // namespace fovea
