// Arithmetic, comparisons and logic of two tensors, or of a tensor and a number. Which op is meant is a code (core/elementwise_params.h):
// one export serves them all, lib/ops/binary.ts has the names.
#include "core/op.h"
#include "core/stream.h"
#include "cuda/elementwise.h"
#include "ops/device.h"
#include "ops/elementwise.h"

namespace fovea {
namespace {

using cpu::BinaryOp;

constexpr const char* kNames[] = {"add", "sub", "mul", "div", "pow", "maximum", "minimum",    "remainder", "atan2",
                                  "eq",  "ne",  "lt",  "le",  "gt",  "ge",      "logicalAnd", "logicalOr", "logicalXor"};
static_assert(std::size(kNames) == cpu::kBinaryOps);

bool compares(int op) { return op >= static_cast<int>(BinaryOp::Eq); }
bool is_logical(int op) { return op >= static_cast<int>(BinaryOp::And); }
bool needs_float(int op) { return op == static_cast<int>(BinaryOp::Div) || op == static_cast<int>(BinaryOp::Atan2); }

struct Types {
  DType compute, out;
};

Types types_of(int op, DType common) {
  if (needs_float(op) && !is_floating(common)) common = DType::F32;
  if (compares(op)) return {arithmetic_type(common), DType::Bool};
  // There is no arithmetic on truth values: true + true is 2.
  if (common == DType::Bool && op != static_cast<int>(BinaryOp::Maximum) && op != static_cast<int>(BinaryOp::Minimum)) common = DType::I64;
  return {arithmetic_type(common), common};
}

void check_op(int64_t op) { check(op >= 0 && op < cpu::kBinaryOps, "ERR_INTERNAL", "binary: unknown op code ", op); }

void check_logical(int op, const Tensor& t) {
  check(!is_logical(op) || t.dtype == DType::Bool, "ERR_DTYPE", kNames[op], ": expected bool, got ", name_of(t.dtype),
        "; compare first, for instance ne(t, 0)");
}

void queue(const char* name, Storages reads, const Tensor& out, const cpu::ElementwiseParams& p) {
  launch(
      name, out.device(), reads, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::binary<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::binary(p, stream); });
}

Tensor binary(int64_t op_code, const Tensor& left, const Tensor& right) {
  check_op(op_code);
  const int op = static_cast<int>(op_code);
  check_logical(op, left);
  check_logical(op, right);
  const Device device = common_device(kNames[op], {&left, &right});
  const Tensor a = readable(left), b = readable(right);
  const Types types = types_of(op, promote(a.dtype, b.dtype));
  Tensor out = Tensor::empty(a.shape == b.shape ? a.shape : broadcast_shape(kNames[op], a.shape, b.shape), types.out, device);
  queue(kNames[op], {a.storage.get(), b.storage.get()}, out, elementwise_params(op, types.compute, {&a, &b}, out));
  return out;
}

// op(t, number), or op(number, t) when `number_first`.
Tensor binary_number(int64_t op_code, const Tensor& tensor, double number, bool number_first) {
  check_op(op_code);
  const int op = static_cast<int>(op_code);
  check(!is_logical(op), "ERR_DTYPE", kNames[op], ": expected two bool tensors, got a number");
  const Tensor t = readable(tensor);
  const Types types = types_of(op, promote_number(t.dtype, number));
  Tensor out = Tensor::empty(t.shape, types.out, t.device());
  const Tensor absent;
  cpu::ElementwiseParams p =
      number_first ? elementwise_params(op, types.compute, {&absent, &t}, out) : elementwise_params(op, types.compute, {&t, &absent}, out);
  p.scalars[number_first ? 0 : 1] = number;
  queue(kNames[op], {t.storage.get()}, out, p);
  return out;
}

Tensor add(const Tensor& a, const Tensor& b) { return binary(static_cast<int64_t>(BinaryOp::Add), a, b); }

const RegisterOp<&binary> binary_registration{"binary"};
const RegisterOp<&binary_number> binary_number_registration{"binaryNumber"};
const RegisterOp<&add> add_registration{"add"};

}  // namespace
}  // namespace fovea
