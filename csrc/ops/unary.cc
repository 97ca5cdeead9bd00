// Functions of one tensor, and their gradients. Which one is meant is a code (core/elementwise_params.h); lib/ops/unary.ts has the names.
#include "core/op.h"
#include "core/stream.h"
#include "cuda/elementwise.h"
#include "ops/device.h"
#include "ops/elementwise.h"

namespace fovea {
namespace {

using cpu::UnaryOp;

constexpr const char* kNames[] = {"neg", "abs",   "sign", "square",   "floor",      "ceil",     "round",     "exp",   "expm1",
                                  "log", "log1p", "sqrt", "rsqrt",    "reciprocal", "sin",      "cos",       "tanh",  "sigmoid",
                                  "erf", "relu",  "gelu", "geluTanh", "silu",       "softplus", "leakyRelu", "clamp", "logicalNot"};
static_assert(std::size(kNames) == cpu::kUnaryOps);

// Integers stay integers under these.
bool keeps_integers(int op) {
  const auto u = static_cast<UnaryOp>(op);
  return u <= UnaryOp::Round || u == UnaryOp::Relu || u == UnaryOp::Clamp;
}

DType result_type(int op, DType in) {
  if (is_floating(in)) return in;
  if (!keeps_integers(op)) return DType::F32;
  return in == DType::Bool ? DType::I64 : in;
}

void check_op(int64_t op) { check(op >= 0 && op < cpu::kUnaryOps, "ERR_INTERNAL", "unary: unknown op code ", op); }

// `first` and `second` are the numbers some functions take: clamp's bounds, the slope of leakyRelu.
Tensor unary(int64_t op_code, const Tensor& tensor, double first, double second) {
  check_op(op_code);
  const Tensor t = readable(tensor);
  const int op = static_cast<int>(op_code);
  const bool is_not = op == static_cast<int>(UnaryOp::Not);
  check(!is_not || t.dtype == DType::Bool, "ERR_DTYPE", "logicalNot: expected bool, got ", name_of(t.dtype), "; use eq(t, 0)");
  const DType dtype = is_not ? DType::Bool : result_type(op, t.dtype);
  Tensor out = Tensor::empty(t.shape, dtype, t.device());
  cpu::ElementwiseParams p = elementwise_params(op, arithmetic_type(dtype), {&t}, out);
  p.scalars[0] = first;
  p.scalars[1] = second;
  launch(
      kNames[op], out.device(), {t.storage.get()}, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::unary<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::unary(p, stream); });
  return out;
}

// grad times the derivative, which is computed from `saved`: the argument or the result of the function.
Tensor unary_backward(int64_t op_code, const Tensor& gradient, const Tensor& argument, double first, double second) {
  check_op(op_code);
  const Device device = common_device("unaryBackward", {&gradient, &argument});
  const Tensor grad = readable(gradient), saved = readable(argument);
  check(is_floating(saved.dtype), "ERR_INTERNAL", "unaryBackward: not a floating dtype");
  const int op = static_cast<int>(op_code);
  Tensor out = Tensor::empty(saved.shape, saved.dtype, device);
  const DType compute = grad.dtype == DType::F64 || saved.dtype == DType::F64 ? DType::F64 : DType::F32;
  check(compute == DType::F32 || saved.dtype == DType::F64, "ERR_INTERNAL", "unaryBackward: gradient of another dtype");
  cpu::ElementwiseParams p = elementwise_params(op, compute, {&grad, &saved}, out);
  p.scalars[0] = first;
  p.scalars[1] = second;
  launch(
      kNames[op], device, {grad.storage.get(), saved.storage.get()}, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::unary_backward<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::unary_backward(p, stream); });
  return out;
}

const RegisterOp<&unary> unary_registration{"unary"};
const RegisterOp<&unary_backward> unary_backward_registration{"unaryBackward"};

}  // namespace
}  // namespace fovea
