// Attention of few queries over long keys. Every key is used for a handful of rows only (the queries of all heads of a GQA group), so the
// kernel runs at the speed of memory, and all it has to do is to keep up.
//
// With so few rows, lanes run along the head dim instead of queries: a register tile of kRows rows by kLanes / kRows keys holds kLanes dot
// products as vectors, summed across lanes all at once by log2(kLanes) butterflies. Values are then added row by row, lanes along the head
// dim again. K and V stream through in their own layout and dtype, once.
// Keys are split in ranges of kRangeKeys, one task each, whatever the length of the cache or the number of threads; a second round merges
// the ranges in order.
#include "cpu/attention_decode.h"

#include "core/call_memory.h"
#include "cpu/attention_scores.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kRangeKeys = 512;
constexpr int kMaxRows = static_cast<int>(kDecodeRows);

// One vector per row of `v`, summed over its lanes: lane i of the result is the sum of v[i].
template <int kStep = 1>
FOVEA_INLINE vf sum_lanes(vf (&v)[kLanes]) {
  if constexpr (kStep == kLanes) {
    return v[0];
  } else {
    FOVEA_UNROLL
    for (int i = 0; i < kLanes / kStep; i += 2) {
      butterfly_step<kStep>(v[i], v[i + 1]);
      v[i / 2] = v[i] + v[i + 1];
    }
    return sum_lanes<2 * kStep>(v);
  }
}

struct Shape {
  const AttentionParams& p;
  int64_t group, rows, ranges;
  int64_t key_pitch, value_pitch;  // floats of a packed query row, of an output row
  float factor, cap;               // of a dot product, to base-2 logits without a cap
  explicit Shape(const AttentionParams& params) : p(params) {
    group = p.heads_q / p.heads_kv;
    rows = group * p.len_q;
    ranges = ceil_div(p.len_kv, kRangeKeys);
    key_pitch = round_up(p.dim, 2 * kLanes);
    value_pitch = round_up(p.dim_v, kLanes);
    cap = p.softcap;
    factor = cap > 0 ? p.scale / cap : p.scale * kLog2E;
  }
  // Of one (batch, key head, range): output rows, sums, maxima.
  int64_t partial_floats() const { return kMaxRows * (value_pitch + 2); }
};

template <class T, Words kWords, int kRows>
class Decoder {
 public:
  Decoder(const Shape& shape, const QueryTile& place, float* scratch)
      : s_(shape), p_(shape.p), at_(place), queries_(scratch), scores_(scratch + kMaxRows * shape.key_pitch) {}

  static int64_t scratch_floats(const Shape& s) { return kMaxRows * (s.key_pitch + kBlockKeys); }

  // Keys [from, to) of the place for all its rows; out, sum and maximum are the partial result.
  void run(int64_t from, int64_t to, float* partial) {
    out_ = partial;
    sum_ = partial + kMaxRows * s_.value_pitch;
    maximum_ = sum_ + kMaxRows;
    for (int64_t i = 0; i < kMaxRows * s_.value_pitch; i++) out_[i] = 0;
    for (int r = 0; r < kMaxRows; r++) sum_[r] = 0, maximum_[r] = kLowest;
    from = max64(from, at_.kv_begin), to = min64(to, at_.kv_end);
    if (from >= to) return;
    pack();
    for (int64_t j = from; j < to; j += kBlockKeys) block(j, static_cast<int>(min64(kBlockKeys, to - j)));
  }

 private:
  static constexpr int kKeys = kLanes / kRows;  // keys of a register tile
  static constexpr int kStep = kWords == Words::Bf16Pair ? 2 * kLanes : kLanes;

  void pack() {
    for (int r = 0; r < kMaxRows; r++) {
      float* to = queries_ + r * s_.key_pitch;
      for (int64_t d = 0; d < s_.key_pitch; d++) to[d] = 0;
      if (r >= s_.rows) continue;
      const T* from = static_cast<const T*>(p_.q.data) + at_.seq.batch * p_.q.sb + at_.head_of(r) * p_.q.sh + at_.query_of(r) * p_.q.sl;
      if constexpr (kWords == Words::Bf16Pair) __builtin_memcpy(to, from, static_cast<size_t>(p_.dim) * 2);
      else
        for (int64_t d = 0; d < p_.dim; d++) to[d] = to_float(from[d]);
    }
  }

  void block(int64_t first, int count) {
    const T *key[kBlockKeys], *value[kBlockKeys];
    uint64_t missing = 0;
    for (int j = 0; j < count; j++) {
      int64_t k = key_row(p_, at_, p_.k, first + j), v = key_row(p_, at_, p_.v, first + j);
      if (k < 0) missing |= uint64_t{1} << j;
      key[j] = static_cast<const T*>(p_.k.data) + max64(k, 0);
      value[j] = static_cast<const T*>(p_.v.data) + max64(v, 0);
    }
    const int padded = static_cast<int>(round_up(count, kLanes));
    for (int j = count; j < padded; j++) key[j] = key[count - 1];
    for (int r0 = 0; r0 < s_.rows; r0 += kRows)
      for (int j = 0; j < padded; j += kKeys) {
        if (r0 == 0)
          for (int i = j; i < j + kKeys && i < count; i++) prefetch(value[i]);
        dots(key + j, r0, j);
      }
    for (int r = 0; r < s_.rows; r++) weigh(r, first, count, padded, missing);
    for (int r0 = 0; r0 < s_.rows; r0 += kRows) add_values(value, count, r0);
  }

  void prefetch(const T* row) const {
    const char* at = reinterpret_cast<const char*>(row);
    for (int64_t b = 0; b < p_.dim_v * static_cast<int64_t>(sizeof(T)); b += 64) __builtin_prefetch(at + b);
  }

  FOVEA_INLINE static vf load_key(const T* p) {
    if constexpr (kWords == Words::Bf16Pair) return load(reinterpret_cast<const float*>(p));
    else return load(p);
  }

  // Dot products of kKeys keys with kRows rows, into scores_[row][j].
  FOVEA_INLINE void dots(const T* const* key, int r0, int j) {
    vf acc[kLanes];  // [row][key]
    FOVEA_UNROLL
    for (int i = 0; i < kLanes; i++) acc[i] = zero();
    const float* query = queries_ + r0 * s_.key_pitch;
    auto step = [&](int64_t d, auto&& load_one) __attribute__((always_inline)) {
      vf k[kKeys];
      FOVEA_UNROLL
      for (int i = 0; i < kKeys; i++) k[i] = load_one(key[i] + d);
      FOVEA_UNROLL
      for (int r = 0; r < kRows; r++) {
        vf q = load(query + r * s_.key_pitch + d * kLanes / kStep);
        FOVEA_UNROLL
        for (int i = 0; i < kKeys; i++) acc[r * kKeys + i] = multiply_add<kWords>(q, k[i], acc[r * kKeys + i]);
      }
    };
    int64_t d = 0;
    for (; d + kStep <= p_.dim; d += kStep) step(d, [](const T* p) { return load_key(p); });
    if (d < p_.dim) {
      const int64_t rest = p_.dim - d;
      step(d, [&](const T* p) {
        T part[kStep] = {};
        for (int64_t i = 0; i < rest; i++) part[i] = p[i];
        return load_key(part);
      });
    }
    alignas(64) float sums[kLanes];
    store(sums, sum_lanes(acc));
    FOVEA_UNROLL
    for (int r = 0; r < kRows; r++) FOVEA_UNROLL
    for (int i = 0; i < kKeys; i++) scores_[(r0 + r) * kBlockKeys + j + i] = sums[r * kKeys + i];
  }

  // Scores of one row become weights; what was accumulated is rescaled when the maximum grows.
  void weigh(int r, int64_t first, int count, int padded, uint64_t missing) {
    float* s = scores_ + r * kBlockKeys;
    const int64_t begin = max64(0, at_.begin[r] - first), end = min64(count, at_.end[r] - first);
    vf top = set1(-kInfinity);
    for (int j = 0; j < padded; j += kLanes) {
      vf v = load(s + j) * set1(s_.factor);
      if (s_.cap > 0) v = set1(s_.cap * kLog2E) * tanh(v);
      vi at = iota() + set1(j);
      v = select((at >= set1(static_cast<int32_t>(begin))) & (at < set1(static_cast<int32_t>(max64(end, 0)))), v, set1(-kInfinity));
      store(s + j, v);
      top = max(v, top);
    }
    if (missing)
      for (int j = 0; j < count; j++)
        if (missing >> j & 1) s[j] = -kInfinity;
    float highest = reduce_max(top), old = maximum_[r];
    if (highest > old) {
      const float factor = exp2(set1(old - highest))[0];
      maximum_[r] = highest;
      sum_[r] *= factor;
      float* out = out_ + r * s_.value_pitch;
      for (int64_t d = 0; d < s_.value_pitch; d += kLanes) store(out + d, load(out + d) * set1(factor));
    }
    vf total = zero(), m = set1(maximum_[r]);
    for (int j = 0; j < padded; j += kLanes) {
      vf e = exp2_weight<Words::F32>(load(s + j) - m, &kExp2);
      store(s + j, e);
      total += e;
    }
    sum_[r] += reduce_add(total);
  }

  // out[row] += sum_j weight[row][j] value[j], kVectorsOfOut vectors of the head dim at a time.
  void add_values(const T* const* value, int count, int r0) {
    constexpr int kWide = kRegisters == 32 ? 16 / kRows : kRows == 4 ? 2 : 8 / kRows;
    int64_t d = 0;
    for (; d + kWide * kLanes <= p_.dim_v; d += kWide * kLanes) add_columns<kWide>(value, count, r0, d);
    for (; d + kLanes <= p_.dim_v; d += kLanes) add_columns<1>(value, count, r0, d);
    if (d < p_.dim_v) add_columns<1>(value, count, r0, d);
  }

  template <int kWide>
  FOVEA_INLINE void add_columns(const T* const* value, int count, int r0, int64_t d) {
    vf acc[kRows][kWide];
    float* out = out_ + r0 * s_.value_pitch + d;
    const float* weight = scores_ + r0 * kBlockKeys;
    const int64_t pitch = s_.value_pitch;
    const int rest = p_.dim_v - d < kWide * kLanes ? static_cast<int>(p_.dim_v - d) : kLanes;
    FOVEA_UNROLL
    for (int r = 0; r < kRows; r++) FOVEA_UNROLL
    for (int n = 0; n < kWide; n++) acc[r][n] = load(out + r * pitch + n * kLanes);
    auto add = [&](int j, const vf(&v)[kWide]) __attribute__((always_inline)) {
      FOVEA_UNROLL
      for (int r = 0; r < kRows; r++) {
        vf w = broadcast(weight + r * kBlockKeys + j);
        FOVEA_UNROLL
        for (int n = 0; n < kWide; n++) acc[r][n] = fma(w, v[n], acc[r][n]);
      }
    };
    vf v[kWide] = {};
    if (rest == kLanes) {
      for (int j = 0; j < count; j++) {
        FOVEA_UNROLL
        for (int n = 0; n < kWide; n++) v[n] = load(value[j] + d + n * kLanes);
        add(j, v);
      }
    } else {
      for (int j = 0; j < count; j++) {
        v[0] = load_part(value[j] + d, rest);
        add(j, v);
      }
    }
    FOVEA_UNROLL
    for (int r = 0; r < kRows; r++) FOVEA_UNROLL
    for (int n = 0; n < kWide; n++) store(out + r * pitch + n * kLanes, acc[r][n]);
  }

  const Shape& s_;
  const AttentionParams& p_;
  const QueryTile& at_;
  float *queries_, *scores_, *out_ = nullptr, *sum_ = nullptr, *maximum_ = nullptr;
};

// All rows of (batch b, key head h) as one tile: lane = head offset * len_q + query.
void place_at(const Shape& s, int64_t b, int64_t h, QueryTile& t) {
  t.seq = sequence_at(s.p, b);
  t.kv_head = h;
  t.head = h * s.group;
  t.first = 0;
  t.queries = static_cast<int>(s.p.len_q);
  t.heads = static_cast<int>(s.group);
  t.lanes = static_cast<int>(s.rows);
  t.vectors = 1;
  set_ranges(s.p, t);
}

template <class T>
void merge_ranges(const Shape& s, const QueryTile& t, const float* parts, float* row) {
  const AttentionParams& p = s.p;
  for (int r = 0; r < s.rows; r++) {
    auto sum_of = [&](int64_t i) { return parts[i * s.partial_floats() + kMaxRows * s.value_pitch + r]; };
    auto maximum_of = [&](int64_t i) { return parts[i * s.partial_floats() + kMaxRows * (s.value_pitch + 1) + r]; };
    float highest = kLowest, sum = 0;
    for (int64_t i = 0; i < s.ranges; i++) highest = maximum_of(i) > highest ? maximum_of(i) : highest;
    for (int64_t d = 0; d < s.value_pitch; d += kLanes) store(row + d, zero());
    for (int64_t i = 0; i < s.ranges; i++) {
      const float factor = exp2(set1(maximum_of(i) - highest))[0], *part = parts + i * s.partial_floats() + r * s.value_pitch;
      sum += sum_of(i) * factor;
      for (int64_t d = 0; d < s.value_pitch; d += kLanes) store(row + d, fma(set1(factor), load(part + d), load(row + d)));
    }
    const float inverse = sum == 0 ? 0 : 1 / sum;
    T* to = static_cast<T*>(p.out.data) + t.seq.batch * p.out.sb + t.head_of(r) * p.out.sh + t.query_of(r) * p.out.sl;
    for (int64_t d = 0; d < p.dim_v; d++) to[d * p.out.sd] = narrow<T>(row[d] * inverse);
    if (!p.lse) continue;
    float lse = sum == 0 ? -kInfinity : sum != sum ? sum : highest * kLn2 + log_positive(set1(sum))[0];
    p.lse[t.seq.batch * p.lse_sb + t.head_of(r) * p.lse_sh + t.query_of(r) * p.lse_sl] = lse;
  }
}

template <class T, Words kWords, int kRows>
void decode(const AttentionParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const Shape s(p);
  const int64_t places = p.batch * p.heads_kv;
  const CallMemory memory(places * s.ranges * s.partial_floats() * 4);
  float* const partials = static_cast<float*>(memory.data);
  const size_t bytes = static_cast<size_t>(Decoder<T, kWords, kRows>::scratch_floats(s)) * 4;
  auto visit = [&](int64_t item, int thread) {
    QueryTile t;
    place_at(s, item / s.ranges / p.heads_kv, item / s.ranges % p.heads_kv, t);
    const int64_t from = item % s.ranges * kRangeKeys;
    float* scratch = static_cast<float*>(pool.scratch(thread, bytes));
    Decoder<T, kWords, kRows>(s, t, scratch).run(from, from + kRangeKeys, partials + item * s.partial_floats());
  };
  pool.run(places * s.ranges, visit, cancel);
  auto merge = [&](int64_t place, int thread) {
    QueryTile t;
    place_at(s, place / p.heads_kv, place % p.heads_kv, t);
    float* row = static_cast<float*>(pool.scratch(thread, static_cast<size_t>(s.value_pitch) * 4));
    merge_ranges<T>(s, t, partials + place * s.ranges * s.partial_floats(), row);
  };
  pool.run(places, merge, cancel);
}

template <class T, Words kWords>
void decode_rows(const AttentionParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const int64_t rows = p.heads_q / p.heads_kv * p.len_q;
  if (rows == 1) decode<T, kWords, 1>(p, pool, cancel);
  else if (rows == 2) decode<T, kWords, 2>(p, pool, cancel);
  else decode<T, kWords, 4>(p, pool, cancel);
}

}  // namespace

template <>
void attention_decode<kIsa>(const AttentionParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  if (p.dtype == DType::F32) decode_rows<float, Words::F32>(p, pool, cancel);
  else if (p.dtype == DType::F16) decode_rows<f16, Words::F32>(p, pool, cancel);
  else decode_rows<bf16, kHasBf16Dot ? Words::Bf16Pair : Words::F32>(p, pool, cancel);
}

}  // namespace fovea::cpu
