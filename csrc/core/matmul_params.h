// What matrix products take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

constexpr int kMatmulBatchRank = 6;

enum class Activation : int { None, Relu, Gelu, GeluTanh, Silu };

// Of products of f32. Highest: f32. High: where the device multiplies TF32 faster, factors are rounded to it; elsewhere f32 as well.
enum class MatmulPrecision : int { Highest, High };

// Element (batch index, i, j) at data + sum(index * batch) + i*row + j*column; strides in elements, 0 where broadcast.
struct MatmulOperand {
  void* data = nullptr;
  int64_t row = 0, column = 0;
  int64_t batch[kMatmulBatchRank] = {};
};

struct MatmulParams {
  DType dtype;      // of a, b and bias: f32, bf16, f16 or f64
  DType out_dtype;  // dtype, or f32
  MatmulPrecision precision = MatmulPrecision::Highest;
  int64_t m, n, k;
  int batch_rank = 0;
  int64_t batch_shape[kMatmulBatchRank] = {};
  MatmulOperand a, b, out;  // [m, k], [k, n], [m, n]; out must not overlap a or b
  MatmulOperand bias;       // [m, n], usually with row stride 0; data null = none
  Activation activation = Activation::None;
  MatmulOperand pre;  // [m, n] of out_dtype: receives a b + bias before the activation; data null = not wanted
};

}  // namespace fovea
