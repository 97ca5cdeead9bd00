// Rows are brought to dense f32 (or f64) in scratch unless they lie so already, then every pass runs over dense vectors. Along an axis
// that is not the last, kColumns neighbouring rows are turned into scratch together, so memory is read and written in whole cache lines.
// Sums are made as in cpu/reduce_states.h, so a row's bits depend on the row alone.
#include "cpu/softmax.h"

#include "cpu/reduce_states.h"
#include "cpu/vmath.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileElements = 16384;
constexpr int64_t kColumns = 16;

FOVEA_INLINE double exp(double x) { return __builtin_exp(x); }

// y[i] = f(x[i]), with f on registers for f32 and on numbers for f64.
template <class T, class F>
FOVEA_INLINE void transform(const T* x, T* y, int64_t n, F f) {
  if constexpr (__is_same(T, float)) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i)));
    const int rest = static_cast<int>(n - i);
    if (rest) store_first(y + i, f(load_first(x + i, rest)), rest);
  } else {
    for (int64_t i = 0; i < n; i++) y[i] = f(x[i]);
  }
}

template <class T, class Body>
FOVEA_INLINE void for_blocks(int64_t n, Body body) {
  for (int64_t i = 0; i < n; i += kBlock) body(i, n - i < kBlock ? n - i : kBlock);
}

template <class T>
void softmax_row(const T* x, T* y, int64_t n, bool log_result) {
  ExtremeState<T, Greater, true> top;
  for_blocks<T>(n, [&](int64_t i, int64_t count) { top.block(x + i, count, i); });
  const T shift = top.best;
  alignas(64) T piece[kBlock];
  SumState<T> sum;
  for_blocks<T>(n, [&](int64_t i, int64_t count) {
    T* e = log_result ? piece : y + i;
    transform(x + i, e, count, [shift](auto v) { return exp(v - shift); });
    sum.block(e, count, i);
  });
  if (log_result) {
    const T log_total = static_cast<T>(std::log(sum.total));
    transform(x, y, n, [shift, log_total](auto v) { return (v - shift) - log_total; });
  } else {
    const T factor = static_cast<T>(1 / sum.total);
    transform(y, y, n, [factor](auto v) { return v * factor; });
  }
}

// softmax: y (g - sum of g y); log-softmax: g - exp(y) sum of g.
template <class T>
void softmax_backward_row(const T* y, const T* g, T* dx, int64_t n, bool log_result) {
  alignas(64) T piece[kBlock];
  SumState<T> sum;
  for_blocks<T>(n, [&](int64_t i, int64_t count) {
    if (log_result) return sum.block(g + i, count, i);
    for (int64_t k = 0; k < count; k++) piece[k] = g[i + k] * y[i + k];
    sum.block(piece, count, i);
  });
  const T total = static_cast<T>(sum.total);
  if (log_result) {
    for_blocks<T>(n, [&](int64_t i, int64_t count) {
      transform(y + i, piece, count, [total](auto v) { return exp(v) * total; });
      for (int64_t k = 0; k < count; k++) dx[i + k] = g[i + k] - piece[k];
    });
  } else {
    for (int64_t k = 0; k < n; k++) dx[k] = y[k] * (g[k] - total);
  }
}

template <class T>
class AxisRows {
 public:
  explicit AxisRows(const SoftmaxParams& p) : p_(p), bytes_(static_cast<int64_t>(size_of(p.dtype))) {}

  // Calls body(rows of inputs, row of the output) for every row; inputs are p.in and p.grad where given.
  template <class Body>
  void run(ThreadPool& pool, Body body) const {
    const bool columns = p_.inner > 1;
    const int64_t groups_per_slab = columns ? (p_.inner + kColumns - 1) / kColumns : 1, groups = p_.outer * groups_per_slab;
    const int64_t cost = (p_.length + 8) * (columns ? kColumns : 1);
    const int64_t per_tile = cost < kTileElements ? kTileElements / cost : 1, tiles = (groups + per_tile - 1) / per_tile;
    auto tile_body = [&](int64_t tile, int thread) {
      const int64_t end = (tile + 1) * per_tile < groups ? (tile + 1) * per_tile : groups;
      T* scratch = static_cast<T*>(pool.scratch(thread, static_cast<size_t>(3 * pitch() * (columns ? kColumns : 1)) * sizeof(T)));
      for (int64_t g = tile * per_tile; g < end; g++) {
        if (columns) column_group(g / groups_per_slab, g % groups_per_slab * kColumns, scratch, body);
        else row(g, scratch, body);
      }
    };
    if (tiles == 1) tile_body(0, 0);
    else pool.run(tiles, tile_body);
  }

 private:
  int64_t pitch() const { return (p_.length + 15) / 16 * 16 + 16; }
  const char* element(const void* base, int64_t i) const { return static_cast<const char*>(base) + i * bytes_; }

  template <class Body>
  void row(int64_t r, T* scratch, Body& body) const {
    const bool direct = p_.dtype == (sizeof(T) == 4 ? DType::F32 : DType::F64);
    const void* sources[2] = {p_.in, p_.grad};
    const T* rows[2] = {};
    for (int k = 0; k < 2; k++) {
      if (!sources[k]) continue;
      const char* at = element(sources[k], r * p_.length);
      if (direct) {
        rows[k] = reinterpret_cast<const T*>(at);
      } else {
        load_block(p_.dtype, at, 1, scratch + k * pitch(), p_.length);
        rows[k] = scratch + k * pitch();
      }
    }
    char* target = static_cast<char*>(p_.out) + r * p_.length * bytes_;
    T* result = direct ? reinterpret_cast<T*>(target) : scratch + 2 * pitch();
    body(rows[0], rows[1], result);
    if (!direct) store_block(p_.dtype, result, target, p_.length);
  }

  template <class Body>
  void column_group(int64_t slab, int64_t first, T* scratch, Body& body) const {
    const int64_t left = p_.inner - first, width = left < kColumns ? left : kColumns;
    const int64_t base = slab * p_.length * p_.inner + first, plane = kColumns * pitch();
    const void* sources[2] = {p_.in, p_.grad};
    T line[kColumns];
    for (int k = 0; k < 2; k++)
      for (int64_t i = 0; i < p_.length && sources[k]; i++) {
        load_block(p_.dtype, element(sources[k], base + i * p_.inner), 1, line, width);
        for (int64_t c = 0; c < width; c++) scratch[k * plane + c * pitch() + i] = line[c];
      }
    for (int64_t c = 0; c < width; c++) body(scratch + c * pitch(), scratch + plane + c * pitch(), scratch + 2 * plane + c * pitch());
    for (int64_t i = 0; i < p_.length; i++) {
      for (int64_t c = 0; c < width; c++) line[c] = scratch[2 * plane + c * pitch() + i];
      store_block(p_.dtype, line, static_cast<char*>(p_.out) + (base + i * p_.inner) * bytes_, width);
    }
  }

  const SoftmaxParams& p_;
  int64_t bytes_;
};

template <class T>
void run_forward(const SoftmaxParams& p, ThreadPool& pool) {
  AxisRows<T>(p).run(pool, [&](const T* x, const T*, T* y) { softmax_row(x, y, p.length, p.log); });
}

template <class T>
void run_backward(const SoftmaxParams& p, ThreadPool& pool) {
  AxisRows<T>(p).run(pool, [&](const T* y, const T* g, T* dx) { softmax_backward_row(y, g, dx, p.length, p.log); });
}

}  // namespace

template <>
void softmax<kIsa>(const SoftmaxParams& p, ThreadPool& pool) {
  if (p.dtype == DType::F64) run_forward<double>(p, pool);
  else run_forward<float>(p, pool);
}

template <>
void softmax_backward<kIsa>(const SoftmaxParams& p, ThreadPool& pool) {
  if (p.dtype == DType::F64) run_backward<double>(p, pool);
  else run_backward<float>(p, pool);
}

}  // namespace fovea::cpu
