// What optimizer kernels take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

// Contiguous arrays of `count` elements. State is f32. `master` holds the parameter in f32 for 16-bit parameters, null otherwise.
struct OptimizerItem {
  void* param;
  const void* grad;
  float *first, *second;  // moments; SGD uses `first`, null without momentum
  float* master;
  int64_t count;
  DType dtype, grad_dtype;  // f32, bf16 or f16
};

// Decoupled weight decay (Loshchilov and Hutter 2019), with the bias corrections c1 = 1 - beta1^t, c2 = 1 - beta2^t:
//   p *= 1 - lr decay;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  p -= lr / c1 * m / (sqrt(v / c2) + eps)
// The factors come rounded from double: 1 - beta2 in f32 would be off by 5e-5.
struct AdamWParams {
  const OptimizerItem* items;
  int64_t count;
  float kept, beta1, rest1, beta2, rest2, step, inverse_root, eps;  // kept = 1 - lr decay, step = lr / c1, inverse_root = 1 / sqrt(c2)
};

//   g += decay p;  m = momentum m + g (m starts at 0);  p -= lr (nesterov ? g + momentum m : m)
struct SgdParams {
  const OptimizerItem* items;
  int64_t count;
  float lr, momentum, decay;
  bool nesterov;
};

struct GradList {
  void* const* data;
  const int64_t* counts;
  const DType* dtypes;
  int64_t count;
};

constexpr int64_t kOptimizerTile = 16384;
inline int64_t optimizer_tiles(int64_t count) { return (count + kOptimizerTile - 1) / kOptimizerTile; }

}  // namespace fovea
