// Depth-wise convolution as its kernels take it.
#pragma once

#include "core/depthwise_conv_params.h"

namespace fovea::cuda {

constexpr int kConvChannels = 32;  // of a block, one a lane
constexpr int kConvWarps = 8;
constexpr int kConvPixels = 4;  // neighbouring outputs of a thread
constexpr int kConvTaps = 8;    // neighbouring taps of a filter row whose gradients a thread sums

struct DepthwiseConvLaunch {
  DepthwiseConvParams params;
  int64_t channel_tiles, row_tiles;  // a row tile: kConvWarps x kConvPixels outputs of an image row
  int stage_rows;                    // rows of the filters in shared memory at a time
};

// partial [parts][taps][channels]: sums over `lines` image rows each.
struct DepthwiseConvWeightLaunch {
  DepthwiseConvWeightParams params;
  float* partial;
  int64_t channel_tiles, column_groups, parts, lines;
};

}  // namespace fovea::cuda
