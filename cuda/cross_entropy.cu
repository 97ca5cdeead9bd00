// Cross entropy of rows of logits against class indices. With p = softmax(x), target t and smoothing e over C classes:
//   loss = lse(x) - (1 - e) x_t - e mean(x)
//   d loss / d x_i = p_i - e / C - (1 - e) [i = t]
// The forward keeps lse, 4 bytes a row, from which the backward recomputes p.
#include "core/cross_entropy_params.h"
#include "cuda/cross_entropy_params.h"
#include "cuda/indexed_params.h"
#include "row_sums.cuh"

namespace fovea::cuda {

// bad: the first row whose target is out of range.
extern "C" __global__ void __launch_bounds__(kRowThreads) cross_entropy(const __grid_constant__ IndexedLaunch<CrossEntropyParams> launch) {
  const CrossEntropyParams& p = launch.params;
  const RowPlace place(row_slots(p.classes));
  const bool there = place.row < p.rows;
  const int64_t base = there ? place.row * p.classes : 0, end = there ? p.classes : 0;
  auto value = [&](int64_t i) { return load_as<float>(p.dtype, p.logits, base + i); };
  float top = -INFINITY, total = 0, sum = 0;
  for (int64_t i = place.slot; i < end; i += place.slots) {
    const float x = value(i);
    top = Larger()(top, x);
    sum += x;
  }
  top = place.join(top, Larger());
  for (int64_t i = place.slot; i < end; i += place.slots) total += expf(value(i) - top);
  total = place.join(total, Plus());
  sum = place.join(sum, Plus());
  if (!there || place.slot != 0) return;
  const int64_t target = index_at(p.targets, place.row);
  float lse = 0, loss = 0;
  if (target != p.ignore) {
    if (in_range(target, p.classes)) {
      lse = top + logf(total);
      loss = lse - (1.f - p.smoothing) * value(target);
      if (p.smoothing != 0) loss -= p.smoothing * (sum / static_cast<float>(p.classes));
    } else {
      note_bad(launch.bad, place.row);
    }
  }
  p.lse[place.row] = lse;
  p.losses[place.row] = loss;
}

// One block: the number of rows that count, and the sum of losses or their mean.
extern "C" __global__ void __launch_bounds__(kRowThreads) cross_entropy_total(const __grid_constant__ CrossEntropyTotal p) {
  const RowPlace place(kRowThreads);
  double kept = 0, sum = 0;
  for (int64_t i = place.slot; i < p.rows; i += place.slots) {
    kept += index_at(p.targets, i) != p.ignore;
    sum += static_cast<double>(p.losses[i]);
  }
  kept = place.join(kept, Plus());
  sum = place.join(sum, Plus());
  if (place.slot != 0) return;
  *p.count = static_cast<float>(kept);
  if (p.total) *p.total = static_cast<float>(p.mean ? sum / kept : sum);
}

extern "C" __global__ void cross_entropy_backward(const __grid_constant__ CrossEntropyBackwardParams p) {
  const int64_t at = global_thread(), row = at / p.classes, i = at % p.classes;
  if (row >= p.rows) return;
  const int64_t target = index_at(p.targets, row);
  float result = 0;
  if (target != p.ignore) {
    const float grad = p.count ? p.grad[row * p.grad_stride] / *p.count : p.grad[row * p.grad_stride];
    const float low = p.smoothing / static_cast<float>(p.classes);
    const float probability = expf(load_as<float>(p.dtype, p.logits, at) - p.lse[row]);
    result = (i == target ? probability - low - (1.f - p.smoothing) : probability - low) * grad;
  }
  store_as<float>(p.dtype, p.grad_logits, at, result);
}

}  // namespace fovea::cuda
