// Layer norm and RMS norm, forward and backward. With y = (x - mean) rstd and h = grad * weight:
//   grad_x = rstd (h - mean(h) - y mean(h y))      (RMS norm: without mean(h))
//   grad_weight = sum over rows of grad * y,  grad_bias = sum over rows of grad
// A warp or a block a row. Column sums are made in two steps: groups of rows into partial sums, then the groups in order.
#include "core/layer_norm_params.h"
#include "row_sums.cuh"

namespace fovea::cuda {

extern "C" __global__ void __launch_bounds__(kRowThreads) norm_forward(const __grid_constant__ NormParams p) {
  const RowPlace place(row_slots(p.width));
  const bool there = place.row < p.rows;
  const int64_t base = there ? place.row * p.width : 0, end = there ? p.width : 0;
  const float inverse = 1.f / static_cast<float>(p.width);
  auto value = [&](int64_t i) { return load_as<float>(p.dtype, p.x, base + i); };
  float mean = 0;
  if (p.mean) {
    for (int64_t i = place.slot; i < end; i += place.slots) mean += value(i);
    mean = place.join(mean, Plus()) * inverse;
  }
  float squares = 0;
  for (int64_t i = place.slot; i < end; i += place.slots) {
    const float d = value(i) - mean;
    squares += d * d;
  }
  const float rstd = 1.f / sqrtf(place.join(squares, Plus()) * inverse + p.eps);
  if (there && place.slot == 0) {
    if (p.mean) p.mean[place.row] = mean;
    p.rstd[place.row] = rstd;
  }
  for (int64_t i = place.slot; i < end; i += place.slots) {
    float y = (value(i) - mean) * rstd;
    if (p.weight) y *= load_as<float>(p.weight_dtype, p.weight, i);
    if (p.bias) y += load_as<float>(p.weight_dtype, p.bias, i);
    store_as<float>(p.dtype, p.out, base + i, y);
  }
}

extern "C" __global__ void __launch_bounds__(kRowThreads) norm_backward_rows(const __grid_constant__ NormBackwardParams p) {
  const RowPlace place(row_slots(p.width));
  const bool there = place.row < p.rows;
  const int64_t base = there ? place.row * p.width : 0, end = there ? p.width : 0;
  const float inverse = 1.f / static_cast<float>(p.width);
  const float mean = there && p.mean ? p.mean[place.row] : 0.f, rstd = there ? p.rstd[place.row] : 0.f;
  auto scaled = [&](int64_t i) {
    const float g = load_as<float>(p.dtype, p.grad, base + i);
    return p.weight ? g * load_as<float>(p.weight_dtype, p.weight, i) : g;
  };
  auto normalized = [&](int64_t i) { return (load_as<float>(p.dtype, p.x, base + i) - mean) * rstd; };
  float sum_h = 0, sum_hy = 0;
  for (int64_t i = place.slot; i < end; i += place.slots) {
    const float h = scaled(i);
    sum_h += h;
    sum_hy += h * normalized(i);
  }
  const float mean_h = p.mean ? place.join(sum_h, Plus()) * inverse : 0.f, mean_hy = place.join(sum_hy, Plus()) * inverse;
  for (int64_t i = place.slot; i < end; i += place.slots)
    store_as<float>(p.dtype, p.grad_x, base + i, (scaled(i) - mean_h - normalized(i) * mean_hy) * rstd);
}

// Column sums of one group of rows (blockIdx.y) into `partial` [groups][weight, bias][width]; a thread a column.
extern "C" __global__ void norm_backward_columns(const __grid_constant__ NormBackwardParams p) {
  const int64_t column = global_thread(), group = blockIdx.y, groups = gridDim.y;
  if (column >= p.width) return;
  float weight = 0, bias = 0;
  for (int64_t row = p.rows * group / groups; row < p.rows * (group + 1) / groups; row++) {
    const float g = load_as<float>(p.dtype, p.grad, row * p.width + column), mean = p.mean ? p.mean[row] : 0.f;
    weight += g * ((load_as<float>(p.dtype, p.x, row * p.width + column) - mean) * p.rstd[row]);
    bias += g;
  }
  p.partial[group * 2 * p.width + column] = weight;
  p.partial[(group * 2 + 1) * p.width + column] = bias;
}

extern "C" __global__ void norm_backward_groups(const __grid_constant__ NormBackwardParams p) {
  const int64_t column = global_thread(), groups = norm_groups(p.rows);
  if (column >= p.width) return;
  float weight = 0, bias = 0;
  for (int64_t group = 0; group < groups; group++) {
    weight += p.partial[group * 2 * p.width + column];
    bias += p.partial[(group * 2 + 1) * p.width + column];
  }
  if (p.grad_weight) store_as<float>(p.weight_dtype, p.grad_weight, column, weight);
  if (p.grad_bias) store_as<float>(p.weight_dtype, p.grad_bias, column, bias);
}

}  // namespace fovea::cuda
