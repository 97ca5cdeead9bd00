// What layer_norm kernels take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/host_device.h"

namespace fovea {

// x, out and grads are contiguous [rows, width] of `dtype`; weight and bias [width] of `weight_dtype`, null where absent. mean is null for
// RMS norm. mean and rstd are f32 [rows].
struct NormParams {
  int64_t rows, width;
  DType dtype, weight_dtype;
  const void *x, *weight, *bias;
  void* out;
  float *mean, *rstd;
  float eps;
};

struct NormBackwardParams {
  int64_t rows, width;
  DType dtype, weight_dtype;
  const void *x, *weight, *grad;
  const float *mean, *rstd;
  void* grad_x;                   // null: not wanted
  void *grad_weight, *grad_bias;  // of weight_dtype, null: not wanted
  float* partial;                 // norm_partial_floats(rows, width) of workspace, null when neither is wanted
};

// Rows are summed into this many partial column sums at most, in an order that depends on the shape only.
constexpr int64_t kNormGroups = 32;
FOVEA_DEVICE constexpr int64_t norm_groups(int64_t rows) { return rows < 8 * kNormGroups ? (rows + 7) / 8 : kNormGroups; }
FOVEA_DEVICE constexpr int64_t norm_partial_floats(int64_t rows, int64_t width) { return norm_groups(rows) * width * 2; }

}  // namespace fovea
