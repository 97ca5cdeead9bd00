// Queries in lanes: a tile is kLanes neighbouring queries of all heads that share keys. Their anchors of one distance are kLanes
// neighbouring keys, so every step of the search reads one piece of memory for the whole group; kLanes dot products are summed as vectors
// and turned in registers into one vector of scores, which is inserted into the sorted lists of the lanes. Refinements, which differ from
// query to query, go one by one.
#include "cpu/span_search.h"

#include <cstring>

#include "cpu/attention_rows.h"
#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr float kNone = -__builtin_inff();

template <class T>
class Search {
 public:
  Search(const SpanSearchParams& p, int64_t batch, int64_t kv_head, int64_t q0, float* memory)
      : p_(p), batch_(batch), kv_head_(kv_head), q0_(q0), group_(p.heads_q / p.heads_kv), pitch_(padded(p.dim)), queries_(memory) {
    count_ = static_cast<int>(p.len_q - q0 < kLanes ? p.len_q - q0 : kLanes);
    keys_ = static_cast<const T*>(p.k.data) + batch * p.k.sb + kv_head * p.k.sh;
    mask_ = p.key_mask ? p.key_mask + batch * p.len_kv : nullptr;
    first_ = p.first ? p.first[batch] : 0;
  }

  static int64_t floats(const SpanSearchParams& p) { return (p.heads_q / p.heads_kv * kLanes + 1) * padded(p.dim); }

  void run() {
    load_queries();
    for (int64_t g = 0; g < group_; g++) {
      for (int t = 0; t < kMaxSpans; t++)
        for (int l = 0; l < kLanes; l++) score_[t][l] = kNone, anchor_[t][l] = -1;
      search(g);
      for (int64_t step = 0; step < p_.refinements; step++)
        for (int l = 0; l < count_; l++) refine(g, l, p_.steps + step * 3 * p_.table);
      write(g);
    }
  }

 private:
  const float* query(int64_t g, int lane) const { return queries_ + (g * kLanes + lane) * pitch_; }

  void load_queries() {
    for (int64_t g = 0; g < group_; g++)
      for (int l = 0; l < kLanes; l++) {
        float* to = queries_ + (g * kLanes + l) * pitch_;
        if (l >= count_) memset(to, 0, static_cast<size_t>(pitch_) * 4);
        else widen_row(p_.dtype, p_.q, batch_ * p_.q.sb + (kv_head_ * group_ + g) * p_.q.sh + (q0_ + l) * p_.q.sl, p_.dim, to);
      }
  }

  bool usable(int64_t key) const { return key >= first_ && key >= 0 && key < p_.len_kv && (!mask_ || mask_[key]); }
  int64_t position(int lane) const { return p_.q_offset + q0_ + lane; }
  int64_t seen(int lane) const {
    int64_t n = position(lane) + 1 - first_;
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

  void insert(int lane, float score, int32_t key) {
    int t = static_cast<int>(p_.spans);
    if (!(score > score_[t - 1][lane])) return;
    for (t--; t > 0 && score > score_[t - 1][lane]; t--) score_[t][lane] = score_[t - 1][lane], anchor_[t][lane] = anchor_[t - 1][lane];
    score_[t][lane] = score, anchor_[t][lane] = key;
  }

  void search(int64_t g) {
    const bool whole = p_.dim % kLanes == 0 && count_ == kLanes;
    for (int64_t i = 0; i < p_.distance_count; i++) {
      const int64_t key0 = position(0) - p_.distances[i];
      if (key0 + count_ - 1 < first_ || key0 + count_ - 1 < 0) break;
      if (whole && key0 >= 0 && key0 + kLanes <= p_.len_kv) {
        insert_all(scores_of(g, key0), static_cast<int32_t>(key0));
        continue;
      }
      for (int l = 0; l < count_; l++)
        if (usable(key0 + l)) insert(l, dot(query(g, l), key0 + l), static_cast<int32_t>(key0 + l));
    }
  }

  // Dot products of query l with key key0 + l.
  __attribute__((noinline)) vf scores_of(int64_t g, int64_t key0) const {
    const float* q = query(g, 0);
    const T* k = keys_ + key0 * p_.k.sl;
    const int64_t step = p_.k.sl, pitch = pitch_, dim = p_.dim;
    vf sum[kLanes];
    FOVEA_UNROLL
    for (int l = 0; l < kLanes; l++) {
      vf s = load(q + l * pitch) * load(k + l * step);
      for (int64_t d = kLanes; d < dim; d += kLanes) s = fma(load(q + l * pitch + d), load(k + l * step + d), s);
      sum[l] = s;
    }
    transpose_square(sum);
    FOVEA_UNROLL
    for (int width = kLanes / 2; width > 0; width /= 2) FOVEA_UNROLL
    for (int l = 0; l < width; l++) sum[l] += sum[l + width];
    return sum[0];
  }

  void insert_all(vf score, int32_t key0) {
    vi key = iota() + set1(key0);
    if (mask_ || key0 < first_)
      for (int l = 0; l < kLanes; l++)
        if (!usable(key0 + l)) score[l] = kNone;
    const int spans = static_cast<int>(p_.spans);
    vi better{};  // from the place taken on, all others move down, equals too
    for (int t = 0; t < spans; t++) {
      vf held = load(score_[t]);
      vi held_key = load(anchor_[t]);
      better |= score > held;
      store(score_[t], select(better, score, held));
      store(anchor_[t], select(better, key, held_key));
      score = select(better, held, score);
      key = select(better, held_key, key);
    }
  }

  bool holds(int lane, int64_t key) const {
    for (int t = 0; t < p_.spans; t++)
      if (anchor_[t][lane] == key) return true;
    return false;
  }

  // Scores the keys around each anchor of a query; all are anchors then, old and new, and the best are kept.
  void refine(int64_t g, int lane, const int32_t* tables) {
    const int64_t n = seen(lane), back = tables[n], forward = tables[p_.table + n], stride = tables[2 * p_.table + n];
    const int64_t last = position(lane) - p_.window;
    int32_t from[kMaxSpans];
    for (int t = 0; t < p_.spans; t++) from[t] = anchor_[t][lane];
    for (int t = 0; t < p_.spans && from[t] >= 0; t++)
      for (int64_t key = from[t] - back / stride * stride; key <= from[t] + forward; key += stride)
        if (usable(key) && key <= last && !holds(lane, key)) insert(lane, dot(query(g, lane), key), static_cast<int32_t>(key));
  }

  void write(int64_t g) const {
    const int64_t head = kv_head_ * group_ + g;
    for (int l = 0; l < count_; l++) {
      const int64_t at = ((batch_ * p_.heads_q + head) * p_.len_q + q0_ + l) * p_.spans, n = seen(l);
      for (int t = 0; t < p_.spans; t++) {
        const int64_t anchor = anchor_[t][l];
        int64_t begin = anchor - p_.span_back[n], end = anchor + p_.span_forward[n], last = position(l) - p_.window;
        if (begin < first_) begin = first_;
        if (begin < 0) begin = 0;
        if (end > last) end = last;
        if (end > position(l)) end = position(l);
        if (end > p_.len_kv - 1) end = p_.len_kv - 1;
        p_.anchors[at + t] = static_cast<int32_t>(anchor);
        p_.scores[at + t] = score_[t][l];
        p_.ranges[2 * (at + t)] = anchor < 0 ? 0 : static_cast<int32_t>(begin);
        p_.ranges[2 * (at + t) + 1] = anchor < 0 ? 0 : static_cast<int32_t>(end + 1);
      }
    }
  }

  const SpanSearchParams& p_;
  int64_t batch_, kv_head_, q0_, group_, pitch_, first_;
  int count_;
  float* queries_;
  const T* keys_;
  const uint8_t* mask_;
  alignas(64) float score_[kMaxSpans][kLanes];
  alignas(64) int32_t anchor_[kMaxSpans][kLanes];
};

template <class T>
void search(const SpanSearchParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const int64_t tiles = (p.len_q + kLanes - 1) / kLanes;
  const size_t bytes = static_cast<size_t>(Search<T>::floats(p)) * 4;
  pool.run(
      p.batch * p.heads_kv * tiles,
      [&](int64_t item, int thread) {
        float* memory = static_cast<float*>(pool.scratch(thread, bytes));
        const int64_t head = item / tiles;
        Search<T>(p, head / p.heads_kv, head % p.heads_kv, item % tiles * kLanes, memory).run();
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
