// All parameters are one range of tiles, so that many small tensors cost one start of the pool. Each kernel is one pass over memory.
#include "cpu/optimizer.h"

#include "cpu/float_types.h"
#include "cpu/vmath.h"

namespace fovea::cpu {
namespace {

// Calls body(item, begin, end) for every tile of items whose sizes size(i) gives.
template <class Size, class Body>
void for_tiles(int64_t items, ThreadPool& pool, Size&& size, Body&& body) {
  int64_t tiles = 0;
  for (int64_t i = 0; i < items; i++) tiles += optimizer_tiles(size(i));
  pool.run(tiles, [&](int64_t tile, int) {
    int64_t item = 0, local = tile;
    for (int64_t n; local >= (n = optimizer_tiles(size(item))); item++) local -= n;
    int64_t begin = local * kOptimizerTile, end = begin + kOptimizerTile;
    body(item, begin, end < size(item) ? end : size(item), tile);
  });
}

// update(p, g, i, n) gives the new value of a register of parameters.
template <class P, class G, class Update>
FOVEA_INLINE void update_range(const OptimizerItem& item, int64_t begin, int64_t end, Update&& update) {
  P* param = static_cast<P*>(item.param);
  const G* grad = static_cast<const G*>(item.grad);
  for_lanes(end - begin, [&](int64_t offset, int n) {
    int64_t i = begin + offset;
    vf p = item.master ? load_part(item.master + i, n) : load_part(param + i, n);
    p = update(p, load_part(grad + i, n), i, n);
    if (item.master) store_part(item.master + i, p, n);
    store_part(param + i, p, n);
  });
}

template <class Update>
void update_tile(const OptimizerItem& item, int64_t begin, int64_t end, Update&& update) {
  with_float(item.dtype, [&](auto p) {
    with_float(item.grad_dtype,
               [&](auto g) { update_range<typename decltype(p)::type, typename decltype(g)::type>(item, begin, end, update); });
  });
}

}  // namespace

template <>
void adamw<kIsa>(const AdamWParams& p, ThreadPool& pool) {
  const vf beta1 = set1(p.beta1), beta2 = set1(p.beta2), rest1 = set1(p.rest1), rest2 = set1(p.rest2);
  const vf kept = set1(p.kept), step = set1(p.step), eps = set1(p.eps), inverse = set1(p.inverse_root);
  for_tiles(
      p.count, pool, [&](int64_t i) { return p.items[i].count; },
      [&](int64_t at, int64_t begin, int64_t end, int64_t) {
        const OptimizerItem& item = p.items[at];
        update_tile(item, begin, end, [&](vf param, vf grad, int64_t i, int n) {
          vf m = fma(beta1, load_part(item.first + i, n), rest1 * grad);
          vf v = fma(beta2, load_part(item.second + i, n), rest2 * grad * grad);
          store_part(item.first + i, m, n);
          store_part(item.second + i, v, n);
          return param * kept - step * m / fma(sqrt(v), inverse, eps);
        });
      });
}

template <>
void sgd<kIsa>(const SgdParams& p, ThreadPool& pool) {
  const vf lr = set1(p.lr), momentum = set1(p.momentum), decay = set1(p.decay);
  for_tiles(
      p.count, pool, [&](int64_t i) { return p.items[i].count; },
      [&](int64_t at, int64_t begin, int64_t end, int64_t) {
        const OptimizerItem& item = p.items[at];
        update_tile(item, begin, end, [&](vf param, vf grad, int64_t i, int n) {
          grad = fma(decay, param, grad);
          vf direction = grad;
          if (item.first) {
            vf m = fma(momentum, load_part(item.first + i, n), grad);
            store_part(item.first + i, m, n);
            direction = p.nesterov ? fma(momentum, m, grad) : m;
          }
          return param - lr * direction;
        });
      });
}

template <>
double sum_squares<kIsa>(const GradList& list, double* partial, ThreadPool& pool) {
  int64_t tiles = 0;
  for (int64_t i = 0; i < list.count; i++) tiles += optimizer_tiles(list.counts[i]);
  for_tiles(
      list.count, pool, [&](int64_t i) { return list.counts[i]; },
      [&](int64_t at, int64_t begin, int64_t end, int64_t tile) {
        with_float(list.dtypes[at], [&](auto t) {
          const auto* x = static_cast<const typename decltype(t)::type*>(list.data[at]) + begin;
          vf sum[2] = {zero(), zero()};
          for_lanes(end - begin, [&](int64_t i, int n) {
            vf v = load_part(x + i, n);
            sum[i / kLanes & 1] = fma(v, v, sum[i / kLanes & 1]);
          });
          partial[tile] = static_cast<double>(reduce_add(sum[0] + sum[1]));
        });
      });
  double total = 0;
  for (int64_t i = 0; i < tiles; i++) total += partial[i];
  return total;
}

template <>
void scale_all<kIsa>(const GradList& list, float factor, ThreadPool& pool) {
  for_tiles(
      list.count, pool, [&](int64_t i) { return list.counts[i]; },
      [&](int64_t at, int64_t begin, int64_t end, int64_t) {
        with_float(list.dtypes[at], [&](auto t) {
          auto* x = static_cast<typename decltype(t)::type*>(list.data[at]) + begin;
          for_lanes(end - begin, [&](int64_t i, int n) { store_part(x + i, load_part(x + i, n) * set1(factor), n); });
        });
      });
}

}  // namespace fovea::cpu
