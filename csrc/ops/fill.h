// Filling as a part of other ops' tasks.
#pragma once

#include "core/stream.h"
#include "core/tensor.h"
#include "cuda/launch.h"

namespace fovea {

// Filling the contiguous tensor `out` with `value`.
struct FillTask {
  void* out;
  int64_t count;
  DType dtype;
  double value;
  FillTask(const Tensor& t, double v) : out(t.data()), count(t.count()), dtype(t.dtype), value(v) {}
};
void run_fill(const TaskContext& ctx, const FillTask& task);
void run_fill(cuda::Stream& stream, const FillTask& task);

}  // namespace fovea
