// With p = softmax(x), target t and smoothing e over C classes:
//   loss = lse(x) - (1 - e) x_t - e mean(x)
//   d loss / d x_i = p_i - e / C - (1 - e) [i = t]
// The forward keeps lse, 4 bytes a row, from which the backward recomputes p: the probabilities are never stored.
#include "cpu/cross_entropy.h"

#include "cpu/float_types.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileElements = 16384;

int64_t rows_per_tile(int64_t classes) { return classes >= kTileElements ? 1 : kTileElements / classes; }

// log(x) of one positive number per row; the accuracy of libm matters more than its time.
float log_of(float x) { return static_cast<float>(__builtin_log(static_cast<double>(x))); }

template <class T>
float row_max(const T* x, int64_t n) {
  vf best = set1(-__builtin_inff());
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) best = max(best, load(x + i));
  float m = reduce_max(best);
  for (; i < n; i++) m = to_float(x[i]) > m ? to_float(x[i]) : m;
  return m;
}

template <class T>
float row_lse(const T* x, int64_t n) {
  const float m = row_max(x, n);
  const vf shift = set1(m);
  vf sum[2] = {zero(), zero()};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    sum[0] += exp(load(x + i) - shift);
    sum[1] += exp(load(x + i + kLanes) - shift);
  }
  for (; i < n; i += kLanes) {
    int count = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    sum[0] += select(first_lanes(count), exp(load_part(x + i, count) - shift), zero());
  }
  return m + log_of(reduce_add(sum[0] + sum[1]));
}

template <class T>
float row_mean(const T* x, int64_t n) {
  vf sum = zero();
  for_lanes(n, [&](int64_t i, int count) { sum += load_part(x + i, count); });
  return reduce_add(sum) / static_cast<float>(n);
}

template <class T>
void backward_row(const CrossEntropyBackwardParams& p, int64_t row) {
  const T* x = static_cast<const T*>(p.logits) + row * p.classes;
  T* out = static_cast<T*>(p.grad_logits) + row * p.classes;
  const int64_t target = index_at(p.targets, row);
  if (target == p.ignore) {
    __builtin_memset(out, 0, p.classes * sizeof(T));
    return;
  }
  const float grad = p.count ? p.grad[row * p.grad_stride] / *p.count : p.grad[row * p.grad_stride];
  const float floor = p.smoothing / static_cast<float>(p.classes);
  const vf shift = set1(p.lse[row]), scale = set1(grad), low = set1(floor);
  for_lanes(p.classes, [&](int64_t i, int n) { store_part(out + i, (exp(load_part(x + i, n) - shift) - low) * scale, n); });
  float probability = exp(set1(to_float(x[target])) - shift)[0];
  out[target] = narrow<T>((probability - floor - (1.f - p.smoothing)) * grad);
}

}  // namespace

template <>
int64_t cross_entropy<kIsa>(const CrossEntropyParams& p, ThreadPool& pool) {
  const int64_t step = rows_per_tile(p.classes);
  FirstBad bad;
  with_float(p.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    pool.run((p.rows + step - 1) / step, [&](int64_t tile, int) {
      for (int64_t row = tile * step; row < p.rows && row < (tile + 1) * step; row++) {
        const T* x = static_cast<const T*>(p.logits) + row * p.classes;
        const int64_t target = index_at(p.targets, row);
        p.losses[row] = p.lse[row] = 0;
        if (target == p.ignore) continue;
        if (!in_range(target, p.classes)) {
          bad.note(row);
          continue;
        }
        float lse = p.lse[row] = row_lse(x, p.classes), loss = lse - (1.f - p.smoothing) * to_float(x[target]);
        if (p.smoothing != 0) loss -= p.smoothing * row_mean(x, p.classes);
        p.losses[row] = loss;
      }
    });
  });
  return bad.position();
}

template <>
void cross_entropy_backward<kIsa>(const CrossEntropyBackwardParams& p, ThreadPool& pool) {
  const int64_t step = rows_per_tile(p.classes);
  with_float(p.dtype, [&](auto t) {
    pool.run((p.rows + step - 1) / step, [&](int64_t tile, int) {
      for (int64_t row = tile * step; row < p.rows && row < (tile + 1) * step; row++) backward_row<typename decltype(t)::type>(p, row);
    });
  });
}

}  // namespace fovea::cpu
