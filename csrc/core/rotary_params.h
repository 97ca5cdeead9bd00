// What rotary kernels take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/indices.h"

namespace fovea {

// x and out are [batch, heads, length, width] by strides (elements; the last axis is dense). The first `dims` of each row are turned, the
// rest is copied. Row (b, l) turns by row positions[b * position_stride + l] + offset of the tables cos, sin [table_rows, dims / 2].
struct RotaryParams {
  int64_t batch, heads, length, width, dims;
  DType dtype;
  const void* x;
  void* out;
  int64_t x_batch, x_head, x_row, out_batch, out_head, out_row;
  const float *cos, *sin;
  int64_t table_rows;
  Indices positions;  // data null: position l
  int64_t position_stride, offset;
  bool interleaved;  // pairs (2i, 2i + 1), otherwise (i, i + dims / 2)
  bool inverse;      // turn back: the gradient
};

// cos, sin [length, half] of the angle l base^(-2 i / dims) of position l and pair i.
struct RotaryTableParams {
  float *cos, *sin;
  int64_t length, half, dims;
  double base;
};

}  // namespace fovea
