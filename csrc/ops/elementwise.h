// What elementwise ops share: promotion of dtypes, and kernel parameters from tensors.
#pragma once

#include "core/tensor.h"
#include "cpu/elementwise.h"

namespace fovea {

// The dtype both operands are converted to: bool < u8 < i32 < i64 < f16, bf16 < f32 < f64; f16 with bf16 gives f32.
DType promote(DType a, DType b);
// The dtype of `t` combined with a number, which never widens a float: an integer dtype stays for a whole number (bool becomes i64),
// and becomes f32 otherwise.
DType promote_number(DType t, double number);
// The arithmetic type kernels use for values of this dtype: F32, F64, I32 or I64.
DType arithmetic_type(DType dtype);

// `t`, or a queued dense copy when reading it row by row would touch a cache line per element (a large transposed matrix).
Tensor readable(const Tensor& t);

// Parameters for an op over inputs broadcast to out's shape; `compute` is the arithmetic type. Inputs without storage are numbers,
// to be set in `scalars`.
cpu::ElementwiseParams elementwise_params(int op, DType compute, std::initializer_list<const Tensor*> inputs, const Tensor& out);

}  // namespace fovea
