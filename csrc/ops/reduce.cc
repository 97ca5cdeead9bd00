// Reductions over any axes. Which one is meant is a code (cpu/reduce.h): one export serves them all, lib/ops/reduce.ts has the names.
#include "cpu/reduce.h"

#include "core/op.h"
#include "core/stream.h"
#include "cuda/reduce.h"
#include "ops/device.h"

namespace fovea {
namespace {

using cpu::ReduceOp;

constexpr const char* kNames[] = {"sum", "mean", "prod", "max", "min", "argMax", "argMin", "any", "all", "variance", "norm", "logSumExp"};
static_assert(std::size(kNames) == cpu::kReduceOps);

bool is_one_of(int op, std::initializer_list<ReduceOp> ops) {
  for (ReduceOp o : ops)
    if (static_cast<int>(o) == op) return true;
  return false;
}

bool has_no_identity(int op) { return is_one_of(op, {ReduceOp::Max, ReduceOp::Min, ReduceOp::ArgMax, ReduceOp::ArgMin}); }

DType result_type(int op, DType in) {
  if (is_one_of(op, {ReduceOp::Any, ReduceOp::All})) return DType::Bool;
  if (is_one_of(op, {ReduceOp::ArgMax, ReduceOp::ArgMin})) return DType::I64;
  if (is_one_of(op, {ReduceOp::Sum, ReduceOp::Prod})) return is_floating(in) ? in : DType::I64;
  if (is_one_of(op, {ReduceOp::Max, ReduceOp::Min})) return in;
  check(is_floating(in), "ERR_DTYPE", kNames[op], ": expected a floating dtype, got ", name_of(in),
        "; cast first, for instance cast(t, 'f32')");
  return in;
}

// `axes` empty: all of them. `correction` is for variance only.
Tensor reduce(int64_t op_code, const Tensor& t, const std::vector<int64_t>& axes, bool keep_dims, double correction) {
  check(op_code >= 0 && op_code < cpu::kReduceOps, "ERR_INTERNAL", "reduce: unknown op code ", op_code);
  const int op = static_cast<int>(op_code);
  bool reduced[kMaxRank] = {};
  for (int64_t axis : axes) {
    const int i = normalize_axis(kNames[op], axis, t.rank());
    check(!reduced[i], "ERR_ARGUMENT", kNames[op], ": axis ", axis, " is given twice");
    reduced[i] = true;
  }
  const DType out_dtype = result_type(op, t.dtype);
  cpu::ReduceParams p{};
  p.op = op;
  p.compute = !is_floating(t.dtype) ? DType::I64 : t.dtype == DType::F64 ? DType::F64 : DType::F32;
  p.in_dtype = t.dtype;
  p.out_dtype = out_dtype;
  p.correction = correction;
  Dims shape;
  for (int i = 0; i < t.rank(); i++) {
    if (axes.empty() || reduced[i]) {
      check(t.shape[i] > 0 || !has_no_identity(op), "ERR_SHAPE", kNames[op], ": axis ", i, " of ", text_of(t.shape), " is empty");
      p.reduced_shape[p.reduced_rank] = t.shape[i];
      p.reduced_strides[p.reduced_rank++] = t.strides[i];
      if (keep_dims) shape.push(1);
    } else {
      p.kept_shape[p.kept_rank] = t.shape[i];
      p.kept_strides[p.kept_rank++] = t.strides[i];
      shape.push(t.shape[i]);
    }
  }
  Tensor out = Tensor::empty(shape, out_dtype, t.device());
  p.in = t.data();
  p.out = out.data();
  if (out.count() > 0)
    launch(
        kNames[op], out.device(), {t.storage.get()}, {out.storage.get()},
        [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::reduce<isa()>(p, ctx.pool); }); },
        [p](cuda::Stream& stream) { cuda::reduce(p, stream); });
  return out;
}

// sum with the signature that autograd uses.
Tensor sum(const Tensor& t, const std::vector<int64_t>& axes, bool keep_dims) {
  return reduce(static_cast<int64_t>(ReduceOp::Sum), t, axes, keep_dims, 0);
}

const RegisterOp<&reduce> reduce_registration{"reduce"};
const RegisterOp<&sum> sum_registration{"sum"};

}  // namespace
}  // namespace fovea
