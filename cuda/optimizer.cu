// Optimizer steps in place over many parameters at once, and clipping of gradients by their common norm. A block a tile of kOptimizerTile
// elements of one tensor; sums of squares are added up tile by tile in order.
#include "cuda/optimizer_params.h"
#include "row_sums.cuh"

namespace fovea::cuda {

namespace {

struct TilePlace {
  int item;
  int64_t begin, end;
};

__device__ __forceinline__ TilePlace tile_place(const OptimizerGroup& group) {
  const int block = static_cast<int>(blockIdx.x);
  int low = 0, high = group.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (group.first_tile[middle] <= block) low = middle;
    else high = middle;
  }
  const int64_t begin = static_cast<int64_t>(block - group.first_tile[low]) * kOptimizerTile;
  return {low, begin, min(begin + kOptimizerTile, group.items[low].count)};
}

// update(item, i, parameter, gradient) gives the new parameter.
template <class Update>
__device__ __forceinline__ void update_tile(const OptimizerGroup& group, Update&& update) {
  const TilePlace place = tile_place(group);
  const OptimizerItem& item = group.items[place.item];
  for (int64_t i = place.begin + threadIdx.x; i < place.end; i += blockDim.x) {
    const float old = item.master ? item.master[i] : load_as<float>(item.dtype, item.param, i);
    const float now = update(item, i, old, load_as<float>(item.grad_dtype, item.grad, i));
    if (item.master) item.master[i] = now;
    store_as<float>(item.dtype, item.param, i, now);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kOptimizerThreads) adamw(const __grid_constant__ AdamWLaunch p) {
  const AdamWParams& s = p.step;
  update_tile(p.group, [&](const OptimizerItem& item, int64_t i, float param, float grad) {
    const float m = fmaf(s.beta1, item.first[i], s.rest1 * grad), v = fmaf(s.beta2, item.second[i], s.rest2 * grad * grad);
    item.first[i] = m;
    item.second[i] = v;
    return __fadd_rn(__fmul_rn(param, s.kept), -__fdiv_rn(__fmul_rn(s.step, m), fmaf(sqrtf(v), s.inverse_root, s.eps)));
  });
}

extern "C" __global__ void __launch_bounds__(kOptimizerThreads) sgd(const __grid_constant__ SgdLaunch p) {
  const SgdParams& s = p.step;
  update_tile(p.group, [&](const OptimizerItem& item, int64_t i, float param, float grad) {
    grad = fmaf(s.decay, param, grad);
    float direction = grad;
    if (item.first) {
      const float m = fmaf(s.momentum, item.first[i], grad);
      item.first[i] = m;
      direction = s.nesterov ? fmaf(s.momentum, m, grad) : m;
    }
    return __fadd_rn(param, -__fmul_rn(s.lr, direction));
  });
}

extern "C" __global__ void __launch_bounds__(kRowThreads) sum_squares(const __grid_constant__ SumSquaresLaunch p) {
  const TilePlace place = tile_place(p.group);
  const OptimizerItem& item = p.group.items[place.item];
  double sum = 0;
  for (int64_t i = place.begin + threadIdx.x; i < place.end; i += blockDim.x) {
    const double x = static_cast<double>(load_as<float>(item.dtype, item.param, i));
    sum += x * x;
  }
  sum = RowPlace(kRowThreads).join(sum, Plus());
  if (threadIdx.x == 0) p.partial[blockIdx.x] = sum;
}

// One block: the norm of all, and the factor that brings it to at most max_norm.
extern "C" __global__ void __launch_bounds__(kRowThreads) clip_norm(const __grid_constant__ ClipNormParams p) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < p.tiles; i += kRowThreads) sum += p.partial[i];
  const double length = sqrt(RowPlace(kRowThreads).join(sum, Plus()));
  if (threadIdx.x != 0) return;
  *p.norm = static_cast<float>(length);
  *p.factor = static_cast<float>(p.max_norm / (length + 1e-6));
}

extern "C" __global__ void __launch_bounds__(kOptimizerThreads) scale_all(const __grid_constant__ ScaleLaunch p) {
  const float factor = *p.factor;
  if (factor >= 1.f) return;
  const TilePlace place = tile_place(p.group);
  const OptimizerItem& item = p.group.items[place.item];
  for (int64_t i = place.begin + threadIdx.x; i < place.end; i += blockDim.x)
    store_as<float>(item.dtype, item.param, i, load_as<float>(item.dtype, item.param, i) * factor);
}

}  // namespace fovea::cuda
