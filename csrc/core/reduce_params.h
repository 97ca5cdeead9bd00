// What reduce kernels take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

// Codes are part of the seam: lib/ops/reduce.ts has the same order.
enum class ReduceOp : int { Sum, Mean, Prod, Max, Min, ArgMax, ArgMin, Any, All, Var, Norm, LogSumExp };
constexpr int kReduceOps = 12;

struct ReduceParams {
  int op;
  DType compute;  // F32, F64 or I64
  DType in_dtype, out_dtype;
  int8_t kept_rank, reduced_rank;
  const void* in;
  void* out;
  // Strides in elements of the input; kept axes are those of the output, in order.
  int64_t kept_shape[8], kept_strides[8], reduced_shape[8], reduced_strides[8];
  double correction;  // Var: subtracted from the count in the divisor
};

}  // namespace fovea
