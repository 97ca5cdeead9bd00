// What elementwise kernels take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

// Codes are part of the seam: lib/ops/elementwise_codes.ts has the same order.
enum class BinaryOp : int {
  Add,
  Sub,
  Mul,
  Div,
  Pow,
  Maximum,
  Minimum,
  Remainder,
  Atan2,
  Eq,
  Ne,
  Lt,
  Le,
  Gt,
  Ge,
  And,
  Or,
  Xor,
};
constexpr int kBinaryOps = 18;

enum class UnaryOp : int {
  Neg,
  Abs,
  Sign,
  Square,
  Floor,
  Ceil,
  Round,
  Exp,
  Expm1,
  Log,
  Log1p,
  Sqrt,
  Rsqrt,
  Reciprocal,
  Sin,
  Cos,
  Tanh,
  Sigmoid,
  Erf,
  Relu,
  Gelu,
  GeluTanh,
  Silu,
  Softplus,
  LeakyRelu,  // scalars: slope
  Clamp,      // scalars: low, high
  Not,
};
constexpr int kUnaryOps = 27;

struct ElementwiseInput {
  const void* data;  // null: the value of the matching entry of `scalars`
  DType dtype;
  int64_t strides[8];  // elements; 0 where broadcast
};

struct ElementwiseParams {
  int op;
  DType compute;  // F32, F64, I32 or I64: the arithmetic type, no narrower than any input
  DType out_dtype;
  int8_t inputs, rank;
  ElementwiseInput in[3];
  void* out;
  int64_t shape[8];
  double scalars[3];
};

}  // namespace fovea
