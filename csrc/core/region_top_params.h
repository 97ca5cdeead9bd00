// What the routing of bi-level routing attention takes, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

// Regions of region_height x region_width pixels, the last row and column cut off by the image. With mean(t)[r] = mean of t over the pixels
// of region r, affinity[r, s] = scale * mean(q)[r] . mean(k)[s]; indices and affinities list the `top` largest of each row, falling (of
// equals the lowest region first, NaN largest). Sums are f32.
struct RegionTopParams {
  const void *q, *k;  // [batch, height, width, channels], contiguous
  DType dtype;        // f32, bf16, f16
  int64_t batch, height, width, channels;
  int64_t region_height, region_width, down, across;
  float scale;
  int64_t top;        // 0 < top <= down * across
  float* means;       // workspace [2, batch, down * across, channels]
  int32_t* indices;   // [batch, down * across, top]
  float* affinities;  // the same
};

}  // namespace fovea
