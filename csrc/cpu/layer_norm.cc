// Forward: one row at a time, which stays in the L1 cache over its passes: sum, sum of squared deviations (two passes, so a large mean
// costs no accuracy), then the result.
//
// Backward, with y = (x - mean) rstd and h = grad * weight:
//   grad_x = rstd (h - mean(h) - y mean(h y))      (RMS norm: without mean(h))
//   grad_weight = sum over rows of grad * y,  grad_bias = sum over rows of grad
// Rows are cut into at most kNormGroups groups; each group adds up its column sums while it computes grad_x, so that memory is read once,
// and a second pass adds the groups in order.
#include "cpu/layer_norm.h"

#include "cpu/float_types.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileElements = 32768;
constexpr int64_t kColumnTile = 256;

// Sum of f(i, n), a register per step, over [0, width): four chains in a fixed order.
template <class F>
FOVEA_INLINE float sum_lanes(int64_t width, F&& f) {
  vf acc[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
    FOVEA_UNROLL
    for (int k = 0; k < 4; k++) acc[k] += f(i + k * kLanes, kLanes);
  }
  for (; i + kLanes <= width; i += kLanes) acc[0] += f(i, kLanes);
  if (i < width) acc[1] += f(i, static_cast<int>(width - i));
  return reduce_add((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

FOVEA_INLINE vf keep_first(vf v, int n) { return n == kLanes ? v : select(first_lanes(n), v, zero()); }

template <class T, class W>
void norm_rows(const NormParams& p, int64_t begin, int64_t end) {
  const int64_t width = p.width;
  const float inverse = 1.f / static_cast<float>(width);
  const W* weight = static_cast<const W*>(p.weight);
  const W* bias = static_cast<const W*>(p.bias);
  for (int64_t row = begin; row < end; row++) {
    const T* x = static_cast<const T*>(p.x) + row * width;
    T* out = static_cast<T*>(p.out) + row * width;
    float mean = 0;
    if (p.mean) mean = p.mean[row] = sum_lanes(width, [&](int64_t i, int n) { return load_part(x + i, n); }) * inverse;
    const vf center = set1(mean);
    float squares = sum_lanes(width, [&](int64_t i, int n) {
      vf d = keep_first(load_part(x + i, n) - center, n);
      return d * d;
    });
    float rstd = p.rstd[row] = 1.f / __builtin_sqrtf(squares * inverse + p.eps);
    const vf scale = set1(rstd);
    for_lanes(width, [&](int64_t i, int n) {
      vf y = (load_part(x + i, n) - center) * scale;
      if (weight) y *= load_part(weight + i, n);
      if (bias) y += load_part(bias + i, n);
      store_part(out + i, y, n);
    });
  }
}

// Adds to `partial` ([2][width]: weight, bias) the column sums of the rows.
template <class T, class W>
void norm_backward_rows(const NormBackwardParams& p, int64_t begin, int64_t end, float* partial) {
  const int64_t width = p.width;
  const float inverse = 1.f / static_cast<float>(width);
  const W* weight = static_cast<const W*>(p.weight);
  for (int64_t row = begin; row < end; row++) {
    const T* x = static_cast<const T*>(p.x) + row * width;
    const T* grad = static_cast<const T*>(p.grad) + row * width;
    const vf center = set1(p.mean ? p.mean[row] : 0.f), scale = set1(p.rstd[row]);
    vf sum_h = zero(), sum_hy = zero();
    for_lanes(width, [&](int64_t i, int n) {
      vf g = load_part(grad + i, n);
      vf y = keep_first((load_part(x + i, n) - center) * scale, n);
      vf gy = g * y;
      if (partial) {
        store_part(partial + i, load_part(partial + i, n) + gy, n);
        store_part(partial + width + i, load_part(partial + width + i, n) + g, n);
      }
      if (weight) {
        vf w = load_part(weight + i, n);
        g *= w;
        gy *= w;
      }
      sum_h += g;
      sum_hy += gy;
    });
    if (!p.grad_x) continue;
    T* grad_x = static_cast<T*>(p.grad_x) + row * width;
    const vf mean_h = set1(p.mean ? reduce_add(sum_h) * inverse : 0.f), mean_hy = set1(reduce_add(sum_hy) * inverse);
    for_lanes(width, [&](int64_t i, int n) {
      vf h = load_part(grad + i, n);
      if (weight) h *= load_part(weight + i, n);
      vf y = (load_part(x + i, n) - center) * scale;
      store_part(grad_x + i, (h - mean_h - y * mean_hy) * scale, n);
    });
  }
}

template <class W>
void add_groups(const NormBackwardParams& p, int64_t groups, int64_t begin, int64_t end) {
  W* grad_weight = static_cast<W*>(p.grad_weight);
  W* grad_bias = static_cast<W*>(p.grad_bias);
  for_lanes(end - begin, [&](int64_t i, int n) {
    vf weight = zero(), bias = zero();
    for (int64_t g = 0; g < groups; g++) {
      const float* sums = p.partial + g * 2 * p.width + begin + i;
      weight += load_part(sums, n);
      bias += load_part(sums + p.width, n);
    }
    if (grad_weight) store_part(grad_weight + begin + i, weight, n);
    if (grad_bias) store_part(grad_bias + begin + i, bias, n);
  });
}

}  // namespace

template <>
void norm<kIsa>(const NormParams& p, ThreadPool& pool) {
  if (p.rows == 0 || p.width == 0) return;
  const int64_t per_tile = p.width >= kTileElements ? 1 : kTileElements / p.width;
  with_float(p.dtype, [&](auto t) {
    with_float(p.weight_dtype, [&](auto w) {
      pool.run((p.rows + per_tile - 1) / per_tile, [&](int64_t tile, int) {
        int64_t begin = tile * per_tile, end = begin + per_tile < p.rows ? begin + per_tile : p.rows;
        norm_rows<typename decltype(t)::type, typename decltype(w)::type>(p, begin, end);
      });
    });
  });
}

template <>
void norm_backward<kIsa>(const NormBackwardParams& p, ThreadPool& pool) {
  const int64_t groups = norm_groups(p.rows);
  with_float(p.dtype, [&](auto t) {
    with_float(p.weight_dtype, [&](auto w) {
      using T = typename decltype(t)::type;
      using W = typename decltype(w)::type;
      pool.run(groups, [&](int64_t group, int) {
        float* partial = p.partial ? p.partial + group * 2 * p.width : nullptr;
        if (partial)
          for (int64_t i = 0; i < 2 * p.width; i++) partial[i] = 0;
        norm_backward_rows<T, W>(p, p.rows * group / groups, p.rows * (group + 1) / groups, partial);
      });
      if (!p.partial) return;
      pool.run((p.width + kColumnTile - 1) / kColumnTile, [&](int64_t tile, int) {
        int64_t begin = tile * kColumnTile, end = begin + kColumnTile < p.width ? begin + kColumnTile : p.width;
        add_groups<W>(p, groups, begin, end);
      });
    });
  });
}

}  // namespace fovea::cpu
