// Depth-wise convolution of images with neighbouring channels: lanes are channels, so that every access is one piece of memory.
//
// Forward: a thread makes kConvPixels neighbouring outputs of an image row and reads every input once a filter row; the filters of the
// block's channels lie in shared memory as [tap][channel], some rows at a time when they are large. Taps add up in the order of the CPU's
// kernel.
//
// Gradient of filters: a thread sums kConvTaps neighbouring taps of a filter row over image rows, warps take rows in turn; their sums are
// added in shared memory, and those of all parts by a second kernel, in one order.
#include "cuda/depthwise_conv_params.h"
#include "elements.cuh"

namespace fovea::cuda {

namespace {

template <class T>
__device__ __forceinline__ void convolve(const DepthwiseConvLaunch& launch) {
  extern __shared__ float filters[];
  const DepthwiseConvParams& p = launch.params;
  const int lane = static_cast<int>(threadIdx.x % kConvChannels), warp = static_cast<int>(threadIdx.x / kConvChannels);
  const int64_t tile = blockIdx.x % launch.channel_tiles, rest = blockIdx.x / launch.channel_tiles;
  const int64_t c = tile * kConvChannels + lane, x0 = (rest % launch.row_tiles * kConvWarps + warp) * kConvPixels;
  const int64_t line = rest / launch.row_tiles, y = line % p.height, n = line / p.height;
  const int rows = static_cast<int>(p.rows), columns = static_cast<int>(p.columns), taps = rows * columns;
  const bool active = c < p.channels && x0 < p.width;
  float sum[kConvPixels];
  const float bias = active && p.bias ? to_f32(*at<T>(p.bias, c)) : 0;
#pragma unroll
  for (float& s : sum) s = bias;
  for (int first = 0; first < rows; first += launch.stage_rows) {
    const int last = min(rows, first + launch.stage_rows);
    __syncthreads();
    if (c < p.channels)
      for (int t = first * columns + warp; t < last * columns; t += kConvWarps)
        filters[(t - first * columns) * kConvChannels + lane] = to_f32(at<T>(p.weight, c * taps)[p.flipped ? taps - 1 - t : t]);
    __syncthreads();
    if (!active) continue;
    for (int r = first; r < last; r++) {
      const int64_t from = y + r - rows / 2;
      if (from < 0 || from >= p.height) continue;
      const T* input = at<T>(p.x, n * p.x_batch + from * p.x_row + c);
      const float* filter = filters + (r - first) * columns * kConvChannels + lane;
      for (int s = 0; s < columns + kConvPixels - 1; s++) {
        const int64_t x = x0 + s - columns / 2;
        if (x < 0 || x >= p.width) continue;
        const float value = to_f32(input[x * p.x_column]);
#pragma unroll
        for (int i = 0; i < kConvPixels; i++)
          if (static_cast<unsigned>(s - i) < static_cast<unsigned>(columns)) sum[i] = fmaf(value, filter[(s - i) * kConvChannels], sum[i]);
      }
    }
  }
  if (!active) return;
  T* out = static_cast<T*>(p.y) + (line * p.width + x0) * p.channels + c;
#pragma unroll
  for (int i = 0; i < kConvPixels; i++)
    if (x0 + i < p.width) out[i * p.channels] = narrow<T>(sum[i]);
}

template <class T>
__device__ __forceinline__ void weight_parts(const DepthwiseConvWeightLaunch& launch) {
  __shared__ float sums[kConvWarps][kConvTaps][kConvChannels];
  const DepthwiseConvWeightParams& p = launch.params;
  const int lane = static_cast<int>(threadIdx.x % kConvChannels), warp = static_cast<int>(threadIdx.x / kConvChannels);
  int64_t rest = blockIdx.x;
  const int64_t c = rest % launch.channel_tiles * kConvChannels + lane;
  rest /= launch.channel_tiles;
  const int64_t s0 = rest % launch.column_groups * kConvTaps;
  rest /= launch.column_groups;
  const int64_t r = rest % p.rows, part = rest / p.rows, lines = p.batch * p.height;
  float total[kConvTaps] = {};
  const int64_t last = min(lines, (part + 1) * launch.lines);
  for (int64_t line = part * launch.lines + warp; line < last; line += kConvWarps) {
    const int64_t from = line % p.height + r - p.rows / 2;
    if (c >= p.channels || from < 0 || from >= p.height) continue;
    const T* input = at<T>(p.x, line / p.height * p.x_batch + from * p.x_row + c);
    const T* grad = at<T>(p.y_grad, line * p.width * p.channels + c);
    float sum[kConvTaps] = {};  // of this line, so that long sums stay exact enough
    for (int64_t x = 0; x < p.width; x++) {
      const float g = to_f32(grad[x * p.channels]);
#pragma unroll
      for (int i = 0; i < kConvTaps; i++) {
        const int64_t under = x + s0 + i - p.columns / 2;
        if (under >= 0 && under < p.width) sum[i] = fmaf(to_f32(input[under * p.x_column]), g, sum[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kConvTaps; i++) total[i] += sum[i];
  }
#pragma unroll
  for (int i = 0; i < kConvTaps; i++) sums[warp][i][lane] = total[i];
  __syncthreads();
  const int64_t s = s0 + warp;
  static_assert(kConvWarps == kConvTaps);
  if (c >= p.channels || s >= p.columns) return;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kConvWarps; w++) sum += sums[w][warp][lane];
  launch.partial[(part * p.rows * p.columns + r * p.columns + s) * p.channels + c] = sum;
}

}  // namespace

extern "C" __global__ void depthwise_conv_f32(const __grid_constant__ DepthwiseConvLaunch p) { convolve<float>(p); }
extern "C" __global__ void depthwise_conv_bf16(const __grid_constant__ DepthwiseConvLaunch p) { convolve<bf16>(p); }
extern "C" __global__ void depthwise_conv_f16(const __grid_constant__ DepthwiseConvLaunch p) { convolve<f16>(p); }
extern "C" __global__ void depthwise_conv_weight_f32(const __grid_constant__ DepthwiseConvWeightLaunch p) { weight_parts<float>(p); }
extern "C" __global__ void depthwise_conv_weight_bf16(const __grid_constant__ DepthwiseConvWeightLaunch p) { weight_parts<bf16>(p); }
extern "C" __global__ void depthwise_conv_weight_f16(const __grid_constant__ DepthwiseConvWeightLaunch p) { weight_parts<f16>(p); }

// A thread a tap of a channel.
extern "C" __global__ void depthwise_conv_weight_sum(const __grid_constant__ DepthwiseConvWeightLaunch launch) {
  const DepthwiseConvWeightParams& p = launch.params;
  const int64_t taps = p.rows * p.columns, i = global_thread(), c = i % p.channels, tap = i / p.channels;
  if (tap >= taps) return;
  float sum = 0;
  for (int64_t part = 0; part < launch.parts; part++) sum += launch.partial[part * taps * p.channels + i];
  p.weight_grad[c * taps + tap] = sum;
}

}  // namespace fovea::cuda
