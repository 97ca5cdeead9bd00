// (a, b) -> (a cos - b sin, b cos + a sin) for each pair of a row. The two layouts differ only in where a pair lies: half a row apart, or
// side by side, where two registers are parted into all a and all b and woven together again.
#include "cpu/rotary.h"

#include "cpu/float_types.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileElements = 16384;

template <int... I>
FOVEA_INLINE void part(vf x, vf y, vf& even, vf& odd, std::integer_sequence<int, I...>) {
  even = __builtin_shufflevector(x, y, (2 * I)...);
  odd = __builtin_shufflevector(x, y, (2 * I + 1)...);
}

template <class T>
void turn_halves(const T* x, T* out, const float* cos, const float* sin, int64_t half, vf sign) {
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    vf a = load(x + i), b = load(x + half + i), c = load(cos + i), s = load(sin + i) * sign;
    store(out + i, a * c - b * s);
    store(out + half + i, b * c + a * s);
  }
  if (i == half) return;
  const int n = static_cast<int>(half - i);
  vf a = load_part(x + i, n), b = load_part(x + half + i, n), c = load_part(cos + i, n), s = load_part(sin + i, n) * sign;
  store_part(out + i, a * c - b * s, n);
  store_part(out + half + i, b * c + a * s, n);
}

template <class T>
void turn_neighbours(const T* x, T* out, const float* cos, const float* sin, int64_t half, vf sign) {
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    vf a, b, low, high;
    part(load(x + 2 * i), load(x + 2 * i + kLanes), a, b, kLaneSequence);
    vf c = load(cos + i), s = load(sin + i) * sign;
    weave(a * c - b * s, b * c + a * s, low, high, kLaneSequence);
    store(out + 2 * i, low);
    store(out + 2 * i + kLanes, high);
  }
  for (; i < half; i++) {
    float a = to_float(x[2 * i]), b = to_float(x[2 * i + 1]), c = cos[i], s = sin[i] * sign[0];
    out[2 * i] = narrow<T>(a * c - b * s);
    out[2 * i + 1] = narrow<T>(b * c + a * s);
  }
}

}  // namespace

template <>
int64_t rotary<kIsa>(const RotaryParams& p, ThreadPool& pool) {
  const int64_t rows = p.batch * p.heads * p.length, half = p.dims / 2;
  if (rows == 0 || p.width == 0) return -1;
  const int64_t step = p.width >= kTileElements ? 1 : kTileElements / p.width;
  const bool heads_inside = p.x_head < p.x_row;  // visit rows as they lie in memory
  const vf sign = set1(p.inverse ? -1.f : 1.f);
  FirstBad bad;
  with_float(p.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    pool.run((rows + step - 1) / step, [&](int64_t tile, int) {
      for (int64_t row = tile * step; row < rows && row < (tile + 1) * step; row++) {
        int64_t inner = heads_inside ? p.heads : p.length, outer = heads_inside ? p.length : p.heads;
        int64_t i = row % inner, o = row / inner % outer, b = row / inner / outer;
        int64_t h = heads_inside ? i : o, l = heads_inside ? o : i;
        int64_t position = p.offset + (p.positions.data ? index_at(p.positions, b * p.position_stride + l) : l);
        if (!in_range(position, p.table_rows)) {
          bad.note(b * p.length + l);
          continue;
        }
        const T* x = static_cast<const T*>(p.x) + b * p.x_batch + h * p.x_head + l * p.x_row;
        T* out = static_cast<T*>(p.out) + b * p.out_batch + h * p.out_head + l * p.out_row;
        const float *cos = p.cos + position * half, *sin = p.sin + position * half;
        if (p.interleaved) turn_neighbours(x, out, cos, sin, half, sign);
        else turn_halves(x, out, cos, sin, half, sign);
        __builtin_memcpy(out + p.dims, x + p.dims, (p.width - p.dims) * sizeof(T));
      }
    });
  });
  return bad.position();
}

}  // namespace fovea::cpu
