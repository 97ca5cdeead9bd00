// Unfused neighborhood products: dims in lanes, one query at a time over the rows of its window.
//
// The sums of kLanes neighbouring slots of a dot product are turned together, one transpose for kLanes horizontal sums. The transpose
// product has one owner per (batch, key head), so additions have one order.
#include "cpu/neighborhood_pair.h"

#include "cpu/neighborhood_window.h"

namespace fovea::cpu {
namespace {

constexpr int kKeysAtOnce = kLanes;

// Calls visit(key token, slot) for every key of a query token in order of slots.
template <class Visit>
FOVEA_INLINE void each_key(const NeighborhoodParams& p, int64_t token, Visit&& visit) {
  const auto& axis = p.axis;
  const int64_t x[3] = {token / (axis[1].length * axis[2].length), token / axis[2].length % axis[1].length, token % axis[2].length};
  Range r[3];
  int64_t group[3];
  for (int a = 0; a < 3; a++) {
    group[a] = x[a] % axis[a].dilation;
    r[a] = window_of(axis[a], group_length(axis[a], group[a]), x[a] / axis[a].dilation);
  }
  for (int64_t i0 = r[0].begin; i0 < r[0].end; i0++)
    for (int64_t i1 = r[1].begin; i1 < r[1].end; i1++) {
      const int64_t row =
          ((i0 * axis[0].dilation + group[0]) * axis[1].length + i1 * axis[1].dilation + group[1]) * axis[2].length + group[2];
      const int64_t slot = ((i0 - r[0].begin) * axis[1].kernel + i1 - r[1].begin) * axis[2].kernel - r[2].begin;
      for (int64_t i2 = r[2].begin; i2 < r[2].end; i2++) visit(row + i2 * axis[2].dilation, slot + i2);
    }
}

// Calls visit(row of x and out, head_kv row of a key) for the queries of a tile; a tile is one (batch, token).
template <class Visit>
void each_query(const NeighborhoodPairParams& p, ThreadPool& pool, const std::atomic<bool>* cancel, Visit&& visit) {
  constexpr int64_t kStep = 16;
  const NeighborhoodParams& s = p.space;
  pool.run(
      divide_up(s.batch * s.tokens, kStep),
      [&](int64_t tile, int) {
        for (int64_t i = tile * kStep; i < least((tile + 1) * kStep, s.batch * s.tokens); i++)
          for (int64_t h = 0; h < s.heads_q; h++) visit(i / s.tokens, i % s.tokens, h, h / (s.heads_q / s.heads_kv));
      },
      cancel);
}

FOVEA_INLINE int64_t query_row(const NeighborhoodParams& p, int64_t batch, int64_t token, int64_t head) {
  return (batch * p.tokens + token) * p.heads_q + head;
}
FOVEA_INLINE int64_t key_row(const NeighborhoodParams& p, int64_t batch, int64_t token, int64_t head) {
  return (batch * p.tokens + token) * p.heads_kv + head;
}

// to[slot[i]] = scale * x . row[i] for the first n of kKeysAtOnce rows.
void dot_rows(const float* x, const float* const* row, const int64_t* slot, int n, int64_t dim, float scale, float* to) {
  vf acc[kLanes];
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i++) acc[i] = zero();
  for (int64_t d = 0; d < dim; d += kLanes) {
    const int left = static_cast<int>(least(dim - d, kLanes));
    const vf q = load_first(x + d, left);
    FOVEA_UNROLL
    for (int i = 0; i < kLanes; i++) acc[i] = fma(q, load_first(row[i] + d, left), acc[i]);
  }
  transpose(acc);
  vf sum = zero();
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i++) sum = sum + acc[i];
  alignas(64) float parts[kLanes];
  store(parts, sum * scale);
  for (int i = 0; i < n; i++) to[slot[i]] = parts[i];
}

}  // namespace

template <>
void neighborhood_dot<kIsa>(const NeighborhoodPairParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  each_query(p, pool, cancel, [&](int64_t batch, int64_t token, int64_t head, int64_t head_kv) {
    const NeighborhoodParams& s = p.space;
    const int64_t row = query_row(s, batch, token, head);
    float* to = p.weights + row * p.slots;
    for (int64_t i = 0; i < p.slots; i++) to[i] = p.unseen;
    const float* rows[kKeysAtOnce];
    int64_t slots[kKeysAtOnce];
    int n = 0;
    auto flush = [&] {
      for (int i = n; i < kKeysAtOnce; i++) rows[i] = rows[0];
      dot_rows(p.x + row * s.dim, rows, slots, n, s.dim, p.scale, to);
      n = 0;
    };
    each_key(s, token, [&](int64_t key, int64_t slot) {
      rows[n] = p.keys + key_row(s, batch, key, head_kv) * s.dim, slots[n++] = slot;
      if (n == kKeysAtOnce) flush();
    });
    if (n) flush();
  });
}

template <>
void neighborhood_gather<kIsa>(const NeighborhoodPairParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  each_query(p, pool, cancel, [&](int64_t batch, int64_t token, int64_t head, int64_t head_kv) {
    const NeighborhoodParams& s = p.space;
    const int64_t row = query_row(s, batch, token, head);
    const float* weights = p.weights + row * p.slots;
    for (int64_t d = 0; d < s.dim; d += 4 * kLanes) {
      vf acc[4] = {zero(), zero(), zero(), zero()};
      const int left = static_cast<int>(least(s.dim - d, 4 * kLanes));
      each_key(s, token, [&](int64_t key, int64_t slot) {
        const float* from = p.keys + key_row(s, batch, key, head_kv) * s.dim + d;
        const vf w = set1(weights[slot]);
        FOVEA_UNROLL
        for (int i = 0; i < 4; i++)
          if (i * kLanes < left)
            acc[i] = fma(w, load_first(from + i * kLanes, left - i * kLanes < kLanes ? left - i * kLanes : kLanes), acc[i]);
      });
      FOVEA_UNROLL
      for (int i = 0; i < 4; i++)
        if (i * kLanes < left)
          store_first(p.out + row * s.dim + d + i * kLanes, acc[i] * p.scale, left - i * kLanes < kLanes ? left - i * kLanes : kLanes);
    }
  });
}

template <>
void neighborhood_scatter<kIsa>(const NeighborhoodPairParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const NeighborhoodParams& s = p.space;
  const int64_t group = s.heads_q / s.heads_kv;
  auto visit = [&](int64_t item, int) {
    const int64_t batch = item / s.heads_kv, head_kv = item % s.heads_kv;
    for (int64_t token = 0; token < s.tokens; token++) {
      float* to = p.out + key_row(s, batch, token, head_kv) * s.dim;
      for (int64_t d = 0; d < s.dim; d++) to[d] = 0;
    }
    for (int64_t h = head_kv * group; h < (head_kv + 1) * group; h++)
      for (int64_t token = 0; token < s.tokens; token++) {
        const int64_t row = query_row(s, batch, token, h);
        each_key(s, token, [&](int64_t key, int64_t slot) {
          float* to = p.out + key_row(s, batch, key, head_kv) * s.dim;
          const float w = p.weights[row * p.slots + slot] * p.scale;
          for (int64_t d = 0; d < s.dim; d += kLanes) {
            const int n = static_cast<int>(least(s.dim - d, kLanes));
            store_first(to + d, fma(set1(w), load_first(p.x + row * s.dim + d, n), load_first(to + d, n)), n);
          }
        });
      }
  };
  pool.run(s.batch * s.heads_kv, visit, cancel);
}

template <>
void neighborhood_loops<kIsa>(const NeighborhoodPairParams& p, const float* values, ThreadPool& pool, const std::atomic<bool>* cancel) {
  each_query(p, pool, cancel, [&](int64_t batch, int64_t token, int64_t head, int64_t head_kv) {
    const NeighborhoodParams& s = p.space;
    const int64_t row = query_row(s, batch, token, head);
    float* weights = p.weights + row * p.slots;
    float maximum = kLowest, sum = 0;
    each_key(s, token, [&](int64_t key, int64_t slot) {
      const float* k = p.keys + key_row(s, batch, key, head_kv) * s.dim;
      float dot = 0;
      for (int64_t d = 0; d < s.dim; d++) dot += p.x[row * s.dim + d] * k[d];
      weights[slot] = dot * p.scale;
      if (weights[slot] > maximum) maximum = weights[slot];
    });
    float* out = p.out + row * s.dim;
    for (int64_t d = 0; d < s.dim; d++) out[d] = 0;
    each_key(s, token, [&](int64_t key, int64_t slot) {
      const float* v = values + key_row(s, batch, key, head_kv) * s.dim;
      const float weight = __builtin_expf(weights[slot] - maximum);
      sum += weight;
      for (int64_t d = 0; d < s.dim; d++) out[d] += weight * v[d];
    });
    for (int64_t d = 0; d < s.dim; d++) out[d] /= sum;
  });
}

}  // namespace fovea::cpu
