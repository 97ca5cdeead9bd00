// Batched matrix product over strided views.
#include "ops/matmul.h"

#include "core/op.h"
#include "cuda/matmul.h"
#include "ops/device.h"

namespace fovea {
namespace {

void check_operands(const char* op, const Tensor& a, const Tensor& b, DType out_dtype) {
  check(is_floating(a.dtype) && is_floating(b.dtype), "ERR_DTYPE", op, ": got ", name_of(a.dtype), " and ", name_of(b.dtype),
        ", expected f32, bf16, f16 or f64; use cast() first");
  check(a.dtype == b.dtype, "ERR_DTYPE", op, ": got ", name_of(a.dtype), " and ", name_of(b.dtype),
        ", expected one dtype; use cast() on one of them");
  check(out_dtype == a.dtype || (out_dtype == DType::F32 && a.dtype != DType::F64), "ERR_DTYPE", op, ": output of ", name_of(out_dtype),
        " from operands of ", name_of(a.dtype), "; expected ", name_of(a.dtype), a.dtype == DType::F64 ? "" : " or f32");
  check(a.rank() >= 2 && b.rank() >= 2, "ERR_SHAPE", op, ": got shapes ", text_of(a.shape), " and ", text_of(b.shape),
        ", expected at least two axes each");
  check(a.shape[a.rank() - 1] == b.shape[b.rank() - 2], "ERR_SHAPE", op, ": inner sizes of ", text_of(a.shape), " and ", text_of(b.shape),
        " differ: ", a.shape[a.rank() - 1], " and ", b.shape[b.rank() - 2]);
}

Dims leading(const Dims& shape) {
  Dims lead = shape;
  lead.rank -= 2;
  return lead;
}

cpu::MatmulOperand operand(const Tensor& t) {
  cpu::MatmulOperand x;
  x.data = t.data();
  x.row = t.strides[t.rank() - 2];
  x.column = t.strides[t.rank() - 1];
  for (int i = 0; i < t.rank() - 2; i++) x.batch[i] = t.strides[i];
  return x;
}

Tensor with_batch(const Tensor& t, const Dims& batch) {
  Dims shape = batch;
  shape.push(t.shape[t.rank() - 2]);
  shape.push(t.shape[t.rank() - 1]);
  return t.broadcast_to(shape);
}

Tensor matmul(const Tensor& a, const Tensor& b, int64_t out_dtype, int64_t precision) {
  check(out_dtype >= 0 && out_dtype < kDTypeCount, "ERR_DTYPE", "matmul: unknown dtype code ", out_dtype);
  return launch_matmul("matmul", a, b, static_cast<DType>(out_dtype), precision_of("matmul", precision));
}

const RegisterOp<&matmul> registration{"matmul"};

}  // namespace

MatmulPrecision precision_of(const char* op, int64_t code) {
  check(code == 0 || code == 1, "ERR_ARGUMENT", op, ": unknown precision code ", code);
  return static_cast<MatmulPrecision>(code);
}

Tensor launch_matmul(const char* op, const Tensor& a, const Tensor& b, DType out_dtype, MatmulPrecision precision,
                     const Epilogue& epilogue) {
  check_operands(op, a, b, out_dtype);
  const Tensor absent;
  const Device device = common_device(op, {&a, &b, epilogue.bias ? &*epilogue.bias : &absent});
  const Dims batch = broadcast_shape(op, leading(a.shape), leading(b.shape));
  const Tensor left = with_batch(a, batch), right = with_batch(b, batch);
  const int rank = left.rank();
  cpu::MatmulParams p{};
  p.dtype = a.dtype;
  p.out_dtype = out_dtype;
  p.precision = precision;
  p.m = left.shape[rank - 2];
  p.k = left.shape[rank - 1];
  p.n = right.shape[rank - 1];
  p.batch_rank = batch.rank;
  for (int i = 0; i < batch.rank; i++) p.batch_shape[i] = batch[i];
  Dims shape = batch;
  shape.push(p.m);
  shape.push(p.n);
  Tensor out = Tensor::empty(shape, out_dtype, device);
  p.a = operand(left);
  p.b = operand(right);
  p.out = operand(out);
  p.activation = epilogue.activation;
  Storage* reads[3] = {a.storage.get(), b.storage.get()};
  Storage* writes[2] = {out.storage.get()};
  int read_count = 2, write_count = 1;
  if (const auto& bias = epilogue.bias) {
    check(bias->dtype == a.dtype, "ERR_DTYPE", op, ": bias is ", name_of(bias->dtype), ", expected ", name_of(a.dtype));
    check(bias->rank() == 1 && bias->shape[0] == p.n, "ERR_SHAPE", op, ": bias has shape ", text_of(bias->shape), ", expected [", p.n, "]");
    p.bias.data = bias->data();
    p.bias.column = bias->strides[0];
    reads[read_count++] = bias->storage.get();
  }
  if (const auto& pre = epilogue.pre) {
    p.pre = operand(with_batch(*pre, batch));
    writes[write_count++] = pre->storage.get();
  }
  launch_spans(
      op, device, reads, read_count, writes, write_count, false,
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::matmul<isa()>(p, ctx.pool, ctx.cancel); }); },
      [p](cuda::Stream& stream) { cuda::matmul(p, stream); });
  return out;
}

}  // namespace fovea
