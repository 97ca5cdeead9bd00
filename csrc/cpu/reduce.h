// Reductions of a strided tensor over any of its axes into a contiguous output.
//
// The result for one output element depends only on the values reduced and their logical order: not on strides, on other outputs, or on
// the number of threads (docs/numerics.md tells the order).
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

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

template <Isa>
void reduce(const ReduceParams&, ThreadPool&);

}  // namespace fovea::cpu
