// What depth-wise convolution takes, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

// Images lie as [batch, height, width, channels], channels next to each other; filters as [channels, rows, columns].
struct DepthwiseConvShape {
  DType dtype;  // of all but weight_grad: f32, bf16 or f16
  int64_t batch, height, width, channels;
  int64_t rows, columns;  // of a filter, odd
  const void* x;
  int64_t x_batch, x_row, x_column;  // strides in elements
};

struct DepthwiseConvParams : DepthwiseConvShape {
  const void* weight;
  const void* bias;  // null = none
  bool flipped;      // filters turned by half a turn: the gradient of the input
  void* y;           // contiguous
};

// weight_grad [channels, rows, columns] f32 = sum over pixels of y_grad times the pixel of x that the tap sees.
struct DepthwiseConvWeightParams : DepthwiseConvShape {
  const void* y_grad;  // contiguous
  float* weight_grad;
};

}  // namespace fovea
