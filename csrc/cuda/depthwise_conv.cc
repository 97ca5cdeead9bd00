#include "cuda/depthwise_conv.h"

#include <algorithm>
#include <string>

#include "cuda/depthwise_conv_params.h"
#include "cuda/grid.h"

namespace fovea::cuda {
namespace {

constexpr unsigned kConvThreads = kConvChannels * kConvWarps;
constexpr int64_t kStageBytes = 24 << 10, kMostParts = 256;

int64_t tiles(int64_t count, int64_t each) { return (count + each - 1) / each; }

}  // namespace

void depthwise_conv(const DepthwiseConvParams& p, Stream& stream) {
  const int64_t row_bytes = p.columns * kConvChannels * static_cast<int64_t>(sizeof(float));
  const int64_t stage_rows = std::clamp<int64_t>(kStageBytes / row_bytes, 1, p.rows);
  const DepthwiseConvLaunch launch{p, tiles(p.channels, kConvChannels), tiles(p.width, kConvWarps * kConvPixels),
                                   static_cast<int>(stage_rows)};
  stream.launch((std::string("depthwise_conv_") + name_of(p.dtype)).c_str(),
                grid_of(launch.channel_tiles * launch.row_tiles * p.batch * p.height), {kConvThreads},
                static_cast<size_t>(stage_rows * row_bytes), launch);
}

void depthwise_conv_weight(const DepthwiseConvWeightParams& p, Stream& stream) {
  const int64_t lines = p.batch * p.height, taps = p.rows * p.columns;
  DepthwiseConvWeightLaunch launch{p, nullptr, tiles(p.channels, kConvChannels), tiles(p.columns, kConvTaps), 0, 0};
  launch.lines = std::max<int64_t>(kConvWarps, tiles(lines, kMostParts));
  launch.parts = tiles(lines, launch.lines);
  const Scratch partial = stream.scratch(static_cast<size_t>(launch.parts * taps * p.channels) * sizeof(float));
  launch.partial = partial.data<float>();
  stream.launch((std::string("depthwise_conv_weight_") + name_of(p.dtype)).c_str(),
                grid_of(launch.channel_tiles * launch.column_groups * p.rows * launch.parts), {kConvThreads}, 0, launch);
  stream.launch("depthwise_conv_weight_sum", threads_for(taps * p.channels), {kThreads}, 0, launch);
}

}  // namespace fovea::cuda
