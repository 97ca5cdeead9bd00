// Queries in lanes: kLanes neighbouring queries have anchors of one distance at kLanes neighbouring keys, so that a step of the search
// reads one piece of memory. Its dot products are summed as vectors, folded together into one vector of scores and inserted into the sorted
// lists of the lanes. Refinements, which differ from query to query, go one by one.
//
// A tile is many such vectors of all heads that share keys, and goes through the distances a few at a time: one distance later the keys
// that a tile looks at are mostly the same, moved by as much as the distances differ, and still in the cache.
#include "cpu/span_search.h"

#include <cstring>

#include "cpu/attention_rows.h"
#include "cpu/simd.h"
#include "cpu/vmath.h"

namespace fovea::cpu {
namespace {

constexpr float kNone = -__builtin_inff();
constexpr int kDistances = 4;             // taken at a time
constexpr int64_t kTileFloats = 1 << 16;  // of the queries of a tile: together with as many keys they stay in the L2 cache
constexpr int64_t kTiles = 64;            // that there should be, of sequences that are long enough

// Blocks of 2 kHalf lanes, those of x before those of y, become sums of their halves.
template <int kHalf, int... kIndex>
FOVEA_INLINE vf fold(vf x, vf y, std::integer_sequence<int, kIndex...>) {
  return __builtin_shufflevector(x, y, (kIndex / kHalf * 2 * kHalf + kIndex % kHalf)...) +
         __builtin_shufflevector(x, y, (kIndex / kHalf * 2 * kHalf + kIndex % kHalf + kHalf)...);
}

// Lane l of the result is the sum of v[l], added up as reduce_add does.
template <int kHalf = kLanes / 2>
FOVEA_INLINE vf sums_of(vf (&v)[kLanes]) {
  FOVEA_UNROLL
  for (int i = 0; i < kHalf; i++) v[i] = fold<kHalf>(v[2 * i], v[2 * i + 1], std::make_integer_sequence<int, kLanes>{});
  if constexpr (kHalf > 1) return sums_of<kHalf / 2>(v);
  else return v[0];
}

template <class T>
class Search {
 public:
  Search(const SpanSearchParams& p, int64_t batch, int64_t kv_head, int64_t q0, int64_t count, float* memory)
      : p_(p), batch_(batch), kv_head_(kv_head), q0_(q0), count_(count), group_(p.heads_q / p.heads_kv), pitch_(padded(p.dim)) {
    vectors_ = (count + kLanes - 1) / kLanes;
    queries_ = memory;
    scores_ = queries_ + group_ * vectors_ * kLanes * pitch_;
    anchors_ = reinterpret_cast<int32_t*>(scores_ + group_ * vectors_ * kLanes * p.spans);
    keys_ = static_cast<const T*>(p.k.data) + batch * p.k.sb + kv_head * p.k.sh;
    mask_ = p.key_mask ? p.key_mask + batch * p.len_kv : nullptr;
    first_ = p.first ? p.first[batch] : 0;
  }

  static int64_t floats(const SpanSearchParams& p, int64_t count) {
    return p.heads_q / p.heads_kv * ((count + kLanes - 1) / kLanes * kLanes) * (padded(p.dim) + 2 * p.spans);
  }

  void run() {
    load_queries();
    for (int64_t i = 0; i < group_ * vectors_ * kLanes * p_.spans; i++) scores_[i] = kNone, anchors_[i] = -1;
    const int64_t last = position(count_ - 1);
    for (int64_t i = 0; i < p_.distance_count && last - p_.distances[i] >= max64(first_, 0); i += kDistances)
      for (int64_t g = 0; g < group_; g++)
        for (int64_t v = 0; v < vectors_; v++)
          for (int64_t j = i; j < p_.distance_count && j < i + kDistances; j++) search(g, v * kLanes, p_.distances[j]);
    for (int64_t g = 0; g < group_; g++)
      for (int64_t i = 0; i < count_; i++) {
        for (int64_t step = 0; step < p_.refinements; step++) refine(g, i, p_.steps + step * 3 * p_.table);
        write(g, i);
      }
  }

 private:
  static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

  const float* query(int64_t g, int64_t i) const { return queries_ + (g * vectors_ * kLanes + i) * pitch_; }
  // Lists of query i of the tile, best first: elements kLanes apart.
  int64_t list(int64_t g, int64_t i) const { return ((g * vectors_ + i / kLanes) * p_.spans) * kLanes + i % kLanes; }

  void load_queries() {
    for (int64_t g = 0; g < group_; g++)
      for (int64_t i = 0; i < vectors_ * kLanes; i++) {
        float* to = queries_ + (g * vectors_ * kLanes + i) * pitch_;
        if (i >= count_) memset(to, 0, static_cast<size_t>(pitch_) * 4);
        else widen_row(p_.dtype, p_.q, batch_ * p_.q.sb + (kv_head_ * group_ + g) * p_.q.sh + (q0_ + i) * p_.q.sl, p_.dim, to);
      }
  }

  bool usable(int64_t key) const { return key >= first_ && key >= 0 && key < p_.len_kv && (!mask_ || mask_[key]); }
  int64_t position(int64_t i) const { return p_.q_offset + q0_ + i; }
  int64_t seen(int64_t i) const {
    int64_t n = position(i) + 1 - first_;
    return n < 0 ? 0 : n < p_.table ? n : p_.table - 1;
  }

  float dot(const float* q, int64_t key) const {
    const T* k = keys_ + key * p_.k.sl;
    vf sum = zero();
    int64_t d = 0;
    for (; d + kLanes <= p_.dim; d += kLanes) sum = fma(load(q + d), load(k + d), sum);
    float rest = 0;
    for (; d < p_.dim; d++) rest += q[d] * to_float(k[d]);
    return reduce_add(sum) + rest;
  }

  void insert(int64_t at, float score, int32_t key) {
    float* scores = scores_ + at;
    int32_t* anchors = anchors_ + at;
    int64_t t = p_.spans - 1;
    if (!(score > scores[t * kLanes])) return;
    for (; t > 0 && score > scores[(t - 1) * kLanes]; t--)
      scores[t * kLanes] = scores[(t - 1) * kLanes], anchors[t * kLanes] = anchors[(t - 1) * kLanes];
    scores[t * kLanes] = score, anchors[t * kLanes] = key;
  }

  // Keys `distance` before queries i, i + 1, .. of a vector.
  FOVEA_INLINE void search(int64_t g, int64_t i, int64_t distance) {
    const int64_t key0 = position(i) - distance, left = count_ - i, lanes = left < kLanes ? left : kLanes;
    if (lanes == kLanes && p_.dim % kLanes == 0 && key0 >= 0 && key0 + kLanes <= p_.len_kv)
      return insert_all(list(g, i), scores_of(query(g, i), key0), key0);
    for (int64_t l = 0; l < lanes; l++)
      if (usable(key0 + l)) insert(list(g, i + l), dot(query(g, i + l), key0 + l), static_cast<int32_t>(key0 + l));
  }

  // Dot products of the l-th row from q with key key0 + l.
  __attribute__((noinline)) vf scores_of(const float* q, int64_t key0) const {
    const T* k = keys_ + key0 * p_.k.sl;
    const int64_t step = p_.k.sl, pitch = pitch_, dim = p_.dim;
    vf sum[kLanes];
    FOVEA_UNROLL
    for (int l = 0; l < kLanes; l++) {
      vf s = load(q + l * pitch) * load(k + l * step);
      for (int64_t d = kLanes; d < dim; d += kLanes) s = fma(load(q + l * pitch + d), load(k + l * step + d), s);
      sum[l] = s;
    }
    return sums_of(sum);
  }

  FOVEA_INLINE void insert_all(int64_t at, vf score, int64_t key0) {
    float* scores = scores_ + at;
    int32_t* anchors = anchors_ + at;
    if (mask_ || key0 < first_)
      for (int l = 0; l < kLanes; l++)
        if (!usable(key0 + l)) score[l] = kNone;
    if (!any(score > load(scores + (p_.spans - 1) * kLanes))) return;
    vi key = iota() + set1(static_cast<int32_t>(key0)), better{};  // from the place taken on, all others move down, equals too
    for (int64_t t = 0; t < p_.spans; t++) {
      vf held = load(scores + t * kLanes);
      vi held_key = load(anchors + t * kLanes);
      better |= score > held;
      store(scores + t * kLanes, select(better, score, held));
      store(anchors + t * kLanes, select(better, key, held_key));
      score = select(better, held, score);
      key = select(better, held_key, key);
    }
  }

  bool holds(int64_t at, int64_t key) const {
    for (int64_t t = 0; t < p_.spans; t++)
      if (anchors_[at + t * kLanes] == key) return true;
    return false;
  }

  // Scores the keys around each anchor of a query; all are anchors then, old and new, and the best are kept.
  void refine(int64_t g, int64_t i, const int32_t* tables) {
    const int64_t n = seen(i), back = tables[n], forward = tables[p_.table + n], stride = tables[2 * p_.table + n];
    const int64_t last = position(i) - p_.window, at = list(g, i);
    int32_t from[kMaxSpans];
    for (int64_t t = 0; t < p_.spans; t++) from[t] = anchors_[at + t * kLanes];
    for (int64_t t = 0; t < p_.spans && from[t] >= 0; t++)
      for (int64_t key = from[t] - back / stride * stride; key <= from[t] + forward; key += stride)
        if (usable(key) && key <= last && !holds(at, key)) insert(at, dot(query(g, i), key), static_cast<int32_t>(key));
  }

  void write(int64_t g, int64_t i) const {
    const int64_t head = kv_head_ * group_ + g, from = list(g, i), n = seen(i);
    const int64_t to = ((batch_ * p_.heads_q + head) * p_.len_q + q0_ + i) * p_.spans;
    for (int64_t t = 0; t < p_.spans; t++) {
      const int64_t anchor = anchors_[from + t * kLanes];
      int64_t begin = anchor - p_.span_back[n], end = anchor + p_.span_forward[n], last = position(i) - p_.window;
      if (begin < first_) begin = first_;
      if (begin < 0) begin = 0;
      if (end > last) end = last;
      if (end > position(i)) end = position(i);
      if (end > p_.len_kv - 1) end = p_.len_kv - 1;
      p_.anchors[to + t] = static_cast<int32_t>(anchor);
      p_.scores[to + t] = scores_[from + t * kLanes];
      p_.ranges[2 * (to + t)] = anchor < 0 ? 0 : static_cast<int32_t>(begin);
      p_.ranges[2 * (to + t) + 1] = anchor < 0 ? 0 : static_cast<int32_t>(end + 1);
    }
  }

  const SpanSearchParams& p_;
  int64_t batch_, kv_head_, q0_, count_, group_, pitch_, vectors_, first_;
  float *queries_, *scores_;
  int32_t* anchors_;
  const T* keys_;
  const uint8_t* mask_;
};

// Queries of a tile: as many as the cache holds, but no more than leave every thread some tiles. A multiple of the longest vector.
int64_t tile_queries(const SpanSearchParams& p) {
  constexpr int64_t kLongest = 16;
  const int64_t fits = kTileFloats / (padded(p.dim) * (p.heads_q / p.heads_kv)), share = p.batch * p.heads_kv * p.len_q / kTiles;
  const int64_t n = (fits < share ? fits : share) / kLongest * kLongest;
  return n < kLongest ? kLongest : n;
}

template <class T>
void search(const SpanSearchParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const int64_t step = tile_queries(p), tiles = (p.len_q + step - 1) / step;
  const size_t bytes = static_cast<size_t>(Search<T>::floats(p, step)) * 4;
  pool.run(
      p.batch * p.heads_kv * tiles,
      [&](int64_t item, int thread) {
        float* memory = static_cast<float*>(pool.scratch(thread, bytes));
        const int64_t head = item / tiles, q0 = item % tiles * step, count = p.len_q - q0 < step ? p.len_q - q0 : step;
        Search<T>(p, head / p.heads_kv, head % p.heads_kv, q0, count, memory).run();
      },
      cancel);
}

}  // namespace

template <>
void span_search<kIsa>(const SpanSearchParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  switch (p.dtype) {
    case DType::BF16: return search<bf16>(p, pool, cancel);
    case DType::F16: return search<f16>(p, pool, cancel);
    default: return search<float>(p, pool, cancel);
  }
}

}  // namespace fovea::cpu
