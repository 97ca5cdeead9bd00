// Channels in lanes: one vector of channels of a pixel is the sum over taps of (pixel under the tap) x (filter vector of the tap).
//
// Filters are widened to [tap][channel] once per tile of image rows, so that a tap is one load and one FMA; taps outside the image are left
// out by clipping the tap ranges of a pixel. The gradient of the filters has one owner for each (tap, channel vector), which walks all
// pixels: one order of summation whatever the number of threads.
#include "cpu/depthwise_conv.h"

#include "cpu/float_types.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kRowsPerTile = 4;

struct Taps {
  int64_t begin, end;
};

// Taps of a filter of `size` centred at `at` that fall into [0, extent).
Taps taps_at(int64_t at, int64_t extent, int64_t size) {
  const int64_t half = size / 2, begin = half - at, end = extent - at + half;
  return {begin > 0 ? begin : 0, end < size ? end : size};
}

constexpr int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }

// Channels in use of a vector, when `left` remain.
int lanes_of(int64_t left) { return static_cast<int>(left < kLanes ? left : kLanes); }

template <class T>
void widen_filters(const DepthwiseConvParams& p, float* filters, float* bias) {
  const int64_t taps = p.rows * p.columns, pitch = padded(p.channels);
  const T* weight = static_cast<const T*>(p.weight);
  for (int64_t t = 0; t < taps; t++)
    for (int64_t c = 0; c < pitch; c++)
      filters[t * pitch + c] = c < p.channels ? to_float(weight[c * taps + (p.flipped ? taps - 1 - t : t)]) : 0;
  for (int64_t c = 0; c < pitch; c++) bias[c] = p.bias && c < p.channels ? to_float(static_cast<const T*>(p.bias)[c]) : 0;
}

template <class T>
void image_row(const DepthwiseConvParams& p, int64_t n, int64_t y, const float* filters, const float* bias) {
  const int64_t pitch = padded(p.channels);
  const Taps rows = taps_at(y, p.height, p.rows);
  T* out = static_cast<T*>(p.y) + (n * p.height + y) * p.width * p.channels;
  for (int64_t x = 0; x < p.width; x++) {
    const Taps columns = taps_at(x, p.width, p.columns);
    const T* corner = static_cast<const T*>(p.x) + n * p.x_batch + (y - p.rows / 2) * p.x_row + (x - p.columns / 2) * p.x_column;
    for (int64_t c = 0; c < p.channels; c += kLanes) {
      const int left = lanes_of(p.channels - c);
      vf sum = load(bias + c);
      for (int64_t r = rows.begin; r < rows.end; r++)
        for (int64_t s = columns.begin; s < columns.end; s++)
          sum = fma(load_part(corner + r * p.x_row + s * p.x_column + c, left), load(filters + (r * p.columns + s) * pitch + c), sum);
      store_part(out + x * p.channels + c, sum, left);
    }
  }
}

template <class T>
void convolve(const DepthwiseConvParams& p, ThreadPool& pool) {
  const int64_t lines = p.batch * p.height, pitch = padded(p.channels);
  pool.run((lines + kRowsPerTile - 1) / kRowsPerTile, [&](int64_t tile, int thread) {
    float* filters = static_cast<float*>(pool.scratch(thread, static_cast<size_t>((p.rows * p.columns + 1) * pitch) * 4));
    float* bias = filters + p.rows * p.columns * pitch;
    widen_filters<T>(p, filters, bias);
    for (int64_t i = tile * kRowsPerTile; i < lines && i < (tile + 1) * kRowsPerTile; i++)
      image_row<T>(p, i / p.height, i % p.height, filters, bias);
  });
}

// One tap and vector of channels over all pixels; rows of the image are summed on their own, so that long sums stay exact enough.
template <class T>
vf tap_gradient(const DepthwiseConvWeightParams& p, int64_t r, int64_t s, int64_t c) {
  const int64_t dy = r - p.rows / 2, dx = s - p.columns / 2;
  const int left = lanes_of(p.channels - c);
  const int64_t y0 = dy < 0 ? -dy : 0, y1 = p.height - (dy > 0 ? dy : 0), x0 = dx < 0 ? -dx : 0, x1 = p.width - (dx > 0 ? dx : 0);
  vf sum = zero();
  for (int64_t n = 0; n < p.batch; n++)
    for (int64_t y = y0; y < y1; y++) {
      const T* x = static_cast<const T*>(p.x) + n * p.x_batch + (y + dy) * p.x_row + dx * p.x_column + c;
      const T* g = static_cast<const T*>(p.y_grad) + (n * p.height + y) * p.width * p.channels + c;
      vf line = zero();
      for (int64_t i = x0; i < x1; i++) line = fma(load_part(x + i * p.x_column, left), load_part(g + i * p.channels, left), line);
      sum += line;
    }
  return sum;
}

template <class T>
void weight_gradient(const DepthwiseConvWeightParams& p, ThreadPool& pool) {
  const int64_t taps = p.rows * p.columns, vectors = (p.channels + kLanes - 1) / kLanes;
  pool.run(taps * vectors, [&](int64_t item, int) {
    const int64_t t = item % taps, c = item / taps * kLanes;
    vf sum = tap_gradient<T>(p, t / p.columns, t % p.columns, c);
    for (int64_t i = 0; i < kLanes && c + i < p.channels; i++) p.weight_grad[(c + i) * taps + t] = sum[i];
  });
}

}  // namespace

template <>
void depthwise_conv<kIsa>(const DepthwiseConvParams& p, ThreadPool& pool) {
  switch (p.dtype) {
    case DType::BF16: return convolve<bf16>(p, pool);
    case DType::F16: return convolve<f16>(p, pool);
    default: return convolve<float>(p, pool);
  }
}

template <>
void depthwise_conv_weight<kIsa>(const DepthwiseConvWeightParams& p, ThreadPool& pool) {
  switch (p.dtype) {
    case DType::BF16: return weight_gradient<bf16>(p, pool);
    case DType::F16: return weight_gradient<f16>(p, pool);
    default: return weight_gradient<float>(p, pool);
  }
}

}  // namespace fovea::cpu
