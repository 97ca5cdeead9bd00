// Averages of rows by destination. Ids are sorted first (row_order.cuh); then a warp owns a destination, its lanes running along the row,
// and walks its positions once for every kColumns columns.
#include "cuda/mean_rows_params.h"
#include "row_order.cuh"

namespace fovea::cuda {

namespace {

constexpr int kParts = 4, kColumns = 32 * kParts;

}  // namespace

extern "C" __global__ void mean_rows_order(const __grid_constant__ MeanRowsOrder launch) {
  const MeanRowsParams& p = launch.params;
  const int64_t chunks = (p.count + launch.chunk - 1) / launch.chunk, group = blockIdx.x / chunks,
                first = blockIdx.x % chunks * launch.chunk;
  order_rows(p.count, first, launch.chunk, launch.entries + group * p.count, [&](int64_t at) {
    const int64_t position = group * p.count + at, row = p.ids[position];
    if (in_range(row, p.size)) return row;
    note_bad(launch.bad, position);
    return kNoRow;
  });
}

extern "C" __global__ void mean_rows_sum(const __grid_constant__ MeanRowsSum launch) {
  const MeanRowsParams& p = launch.params;
  const int64_t item = global_thread() / 32, row = item % p.size, group = item / p.size;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  if (group >= p.groups) return;
  int64_t column = lane;
  do {
    float sum[kParts] = {};
    const int64_t found = each_position(launch.entries + group * p.count, p.count, row, [&](int64_t position) {
#pragma unroll
      for (int part = 0; part < kParts; part++)
        if (column + 32 * part < p.width)
          sum[part] += load_as<float>(p.dtype, p.src, (group * p.count + position) * p.width + column + 32 * part);
    });
    const float inverse = 1.f / (static_cast<float>(found) + p.epsilon);
    if (column == 0) p.inverse[item] = inverse;
#pragma unroll
    for (int part = 0; part < kParts; part++)
      if (column + 32 * part < p.width) store_as<float>(p.dtype, p.out, item * p.width + column + 32 * part, sum[part] * inverse);
    column += kColumns;
  } while (column - lane < p.width);
}

}  // namespace fovea::cuda
