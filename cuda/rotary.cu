// Rotary position embedding: a thread turns one pair, or copies one element beyond the turned ones. The table's angles are made in f64.
#include "core/rotary_params.h"
#include "cuda/indexed_params.h"
#include "elements.cuh"

namespace fovea::cuda {

// bad: the first b * length + l whose position is outside the tables.
extern "C" __global__ void rotary(const __grid_constant__ IndexedLaunch<RotaryParams> launch) {
  const RotaryParams& p = launch.params;
  const int64_t half = p.dims / 2, per_row = p.width - half, i = global_thread() % per_row, row = global_thread() / per_row;
  if (row >= p.batch * p.heads * p.length) return;
  const int64_t l = row % p.length, h = row / p.length % p.heads, b = row / p.length / p.heads;
  const int64_t position = p.offset + (p.positions.data ? index_at(p.positions, b * p.position_stride + l) : l);
  if (!in_range(position, p.table_rows)) return note_bad(launch.bad, b * p.length + l);
  const int64_t x = b * p.x_batch + h * p.x_head + l * p.x_row, out = b * p.out_batch + h * p.out_head + l * p.out_row;
  if (i >= half) return store_as<float>(p.dtype, p.out, out + half + i, load_as<float>(p.dtype, p.x, x + half + i));
  const int64_t first = p.interleaved ? 2 * i : i, second = p.interleaved ? 2 * i + 1 : i + half;
  const float c = p.cos[position * half + i], s = p.inverse ? -p.sin[position * half + i] : p.sin[position * half + i];
  const float u = load_as<float>(p.dtype, p.x, x + first), v = load_as<float>(p.dtype, p.x, x + second);
  store_as<float>(p.dtype, p.out, out + first, u * c - v * s);
  store_as<float>(p.dtype, p.out, out + second, v * c + u * s);
}

extern "C" __global__ void rotary_table(const __grid_constant__ RotaryTableParams p) {
  const int64_t i = global_thread() % p.half, l = global_thread() / p.half;
  if (l >= p.length) return;
  const double rate = pow(p.base, -2.0 * static_cast<double>(i) / static_cast<double>(p.dims)), angle = static_cast<double>(l) * rate;
  p.cos[l * p.half + i] = static_cast<float>(cos(angle));
  p.sin[l * p.half + i] = static_cast<float>(sin(angle));
}

}  // namespace fovea::cuda
