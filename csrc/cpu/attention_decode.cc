// Attention of few queries over long keys. Every key is used for a handful of rows only (the queries of all heads of a GQA group), so the
// kernel runs at the speed of memory, and all it has to do is to keep up.
//
// With so few rows, lanes run along the head dim instead of queries (attention_decode_tile.h): a register tile of kRows rows by kLanes /
// kRows keys holds kLanes dot products as vectors, summed across lanes all at once. Values are then added row by row, lanes along the head
// dim again. K and V stream through in their own layout and dtype, once. The non-obvious choice: while a block's keys are multiplied its
// values are prefetched, and while its values are added the next block's keys, whole rows one after the other.
// Keys are split in ranges of kRangeKeys, one task each, whatever the length of the cache or the number of threads; a second round merges
// the ranges in order.
#include "cpu/attention_decode.h"

#include "core/call_memory.h"
#include "core/float_mode.h"
#include "cpu/attention_decode_tile.h"
#include "cpu/attention_scores.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kRangeKeys = 1024;

struct Shape {
  const AttentionParams& p;
  int64_t group, rows, ranges;
  int64_t tile_rows;               // rows, filled up to whole register tiles
  int64_t key_pitch, value_pitch;  // floats of a packed query row, of an output row
  float factor, cap;               // of a dot product, to base-2 logits without a cap
  Shape(const AttentionParams& params, int rows_of_tile) : p(params) {
    group = p.heads_q / p.heads_kv;
    rows = group * p.len_q;
    tile_rows = round_up(rows, rows_of_tile);
    ranges = ceil_div(p.len_kv, kRangeKeys);
    key_pitch = round_up(p.dim, 2 * kLanes);
    value_pitch = round_up(p.dim_v, 2 * kLanes);
    cap = p.softcap;
    factor = cap > 0 ? p.scale / cap : p.scale * kLog2E;
  }
  // Of one (batch, key head, range): output rows, sums, maxima.
  int64_t partial_floats() const { return tile_rows * (value_pitch + 2); }
};

// Rows of up to kBlockKeys keys, and how many there are. Behind the last come repetitions of it, so that loops may run in whole steps.
template <class T>
struct Block {
  const T *key[kBlockKeys], *value[kBlockKeys];
  int64_t first;
  int count, padded;  // padded: whole vectors of scores
  uint64_t missing;   // keys without a row
};

template <class T, Words kWords, int kRows>
class Decoder {
  using C = Chunk<T, kWords>;

 public:
  Decoder(const Shape& shape, const QueryTile& place, float* scratch)
      : s_(shape), p_(shape.p), at_(place), queries_(scratch), scores_(scratch + shape.tile_rows * shape.key_pitch) {}

  static int64_t scratch_floats(const Shape& s) { return s.tile_rows * (s.key_pitch + kBlockKeys); }

  // Keys [from, to) of the place for all its rows; out, sum and maximum are the partial result.
  void run(int64_t from, int64_t to, float* partial) {
    out_ = partial;
    sum_ = partial + s_.tile_rows * s_.value_pitch;
    maximum_ = sum_ + s_.tile_rows;
    for (int64_t i = 0; i < s_.tile_rows * s_.value_pitch; i++) out_[i] = 0;
    for (int r = 0; r < s_.tile_rows; r++) sum_[r] = 0, maximum_[r] = kLowest;
    from = max64(from, at_.kv_begin), to = min64(to, at_.kv_end);
    if (from >= to) return;
    Block<T> blocks[2];
    find_rows(from, to, blocks[0]);
    for (int j = 0; j < blocks[0].count; j++) prefetch_row(blocks[0].key[j], bytes_of(p_.dim));
    pack();
    for (int turn = 0; blocks[turn].count > 0; turn = 1 - turn) {
      Block<T>&now = blocks[turn], &next = blocks[1 - turn];
      find_rows(now.first + now.count, to, next);
      score(now);
      for (int r = 0; r < s_.rows; r++) {
        if (r < next.count) prefetch_row(next.key[r], bytes_of(p_.dim));
        weigh(r, now);
      }
      for (int r0 = 0; r0 < s_.rows; r0 += kRows) add_block(now, next, r0);
    }
  }

 private:
  void pack() {
    for (int r = 0; r < s_.tile_rows; r++) {
      float* to = queries_ + r * s_.key_pitch;
      for (int64_t d = 0; d < s_.key_pitch; d++) to[d] = 0;
      if (r >= s_.rows) continue;
      const T* from = static_cast<const T*>(p_.q.data) + at_.seq.batch * p_.q.sb + at_.head_of(r) * p_.q.sh + at_.query_of(r) * p_.q.sl;
      if constexpr (C::kPair) __builtin_memcpy(to, from, static_cast<size_t>(p_.dim) * 2);
      else
        for (int64_t d = 0; d < p_.dim; d++) to[C::place_in_row(d)] = to_float(from[d]);
    }
  }

  void find_rows(int64_t first, int64_t end, Block<T>& b) const {
    const T *keys = static_cast<const T*>(p_.k.data), *values = static_cast<const T*>(p_.v.data);
    b.first = first;
    b.count = static_cast<int>(min64(kBlockKeys, end - first));
    b.missing = 0;
    if (!p_.page_table && !p_.kv_rows) {
      keys += key_row(p_, at_, p_.k, first), values += key_row(p_, at_, p_.v, first);
      for (int j = 0; j < b.count; j++) b.key[j] = keys + j * p_.k.sl, b.value[j] = values + j * p_.v.sl;
    } else {
      for (int j = 0; j < b.count; j++) {
        const int64_t k = key_row(p_, at_, p_.k, first + j), v = key_row(p_, at_, p_.v, first + j);
        if (k < 0) b.missing |= uint64_t{1} << j;
        b.key[j] = keys + max64(k, 0);
        b.value[j] = values + max64(v, 0);
      }
    }
    b.padded = static_cast<int>(round_up(b.count, kLanes));
    const T *last_key = b.count ? b.key[b.count - 1] : keys, *last_value = b.count ? b.value[b.count - 1] : values;
    for (int j = b.count; j < kBlockKeys; j++) b.key[j] = last_key, b.value[j] = last_value;
  }

  // Dot products of all rows with the keys of the block, while its values are on their way.
  void score(const Block<T>& b) {
    const auto rows =
        p_.dim % C::kElements ? score_rows<T, kWords, kRows, kBlockKeys, true> : score_rows<T, kWords, kRows, kBlockKeys, false>;
    for (int r0 = 0; r0 < s_.rows; r0 += kRows)
      rows(b.key, b.padded, queries_ + r0 * s_.key_pitch, s_.key_pitch, p_.dim, scores_ + r0 * kBlockKeys,
           {b.value, r0 == 0 ? b.count : 0, bytes_of(p_.dim_v)});
  }

  // Scores of one row become weights; what was accumulated is rescaled when the maximum grows.
  void weigh(int r, const Block<T>& b) {
    float* s = scores_ + r * kBlockKeys;
    const int32_t begin = static_cast<int32_t>(max64(0, at_.begin[r] - b.first)),
                  end = static_cast<int32_t>(max64(0, min64(b.count, at_.end[r] - b.first)));
    const bool all = begin == 0 && end == b.padded;
    vf top = set1(-kInfinity);
    for (int j = 0; j < b.padded; j += kLanes) {
      vf v = load(s + j) * set1(s_.factor);
      if (s_.cap > 0) v = set1(s_.cap * kLog2E) * tanh(v);
      if (!all) {
        const vi at = iota() + set1(j);
        v = select((at >= set1(begin)) & (at < set1(end)), v, set1(-kInfinity));
      }
      store(s + j, v);
      top = max(v, top);
    }
    if (b.missing)
      for (int j = 0; j < b.count; j++)
        if (b.missing >> j & 1) s[j] = -kInfinity;
    grow_maximum(r, across_lanes(top, [](vf a, vf b) { return max(a, b); }));
    vf total = zero();
    const vf m = set1(maximum_[r]);
    for (int j = 0; j < b.padded; j += kLanes) {
      const vf e = exp2_weight<Words::F32>(load(s + j) - m, &kExp2);
      if constexpr (C::kPair) store(reinterpret_cast<bf16*>(s) + j, e);
      else store(s + j, e);
      total += e;
    }
    sum_[r] += across_lanes(total, [](vf a, vf b) { return a + b; });
  }

  void grow_maximum(int r, float highest) {
    const float old = maximum_[r];
    if (!(highest > old)) return;
    const float factor = exp2(set1(old - highest))[0];
    maximum_[r] = highest;
    sum_[r] *= factor;
    float* out = out_ + r * s_.value_pitch;
    for (int64_t d = 0; d < s_.value_pitch; d += kLanes) store(out + d, load(out + d) * set1(factor));
  }

  // Adds the values of the block by their weights to kRows outputs, while the next keys are on their way.
  void add_block(const Block<T>& b, const Block<T>& next, int r0) {
    constexpr int kKeysOfStep = C::kPair ? 2 : 1;
    constexpr int kWide = kRegisters == 32 ? 16 / kRows : kRows == 4 ? 2 : 8 / kRows;
    const int steps = (b.count + kKeysOfStep - 1) / kKeysOfStep;
    const float* weights = scores_ + r0 * kBlockKeys;
    float* out = out_ + r0 * s_.value_pitch;
    const int64_t pitch = s_.value_pitch, passes = max64(1, p_.dim_v / (kWide * kLanes));
    int64_t d = 0, passed = 0;
    // Every wide pass brings its share of the next rows.
    auto ahead = [&]() -> Ahead<T> {
      if (r0 > 0 || passed >= passes) return {next.key, 0, 0};
      const int64_t from = next.count * passed / passes, to = next.count * ++passed / passes;
      return {next.key + from, static_cast<int>(to - from), bytes_of(p_.dim)};
    };
    auto pass = [&](auto add, int64_t elements) {
      for (; d + elements <= p_.dim_v; d += elements) add(b.value, d, steps, weights, out + d, pitch, elements, ahead());
    };
    if constexpr (kWide > C::kValueVectors) pass(add_values<T, kWords, kRows, kWide, kBlockKeys, false>, kWide * kLanes);
    pass(add_values<T, kWords, kRows, C::kValueVectors, kBlockKeys, false>, C::kElements);
    if (d < p_.dim_v)
      add_values<T, kWords, kRows, C::kValueVectors, kBlockKeys, true>(b.value, d, steps, weights, out + d, pitch, p_.dim_v - d, ahead());
  }

  static int64_t bytes_of(int64_t elements) { return elements * static_cast<int64_t>(sizeof(T)); }

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

template <class T, Words kWords>
void merge_ranges(const Shape& s, const QueryTile& t, const float* parts, float* row) {
  const AttentionParams& p = s.p;
  for (int r = 0; r < s.rows; r++) {
    auto sum_of = [&](int64_t i) { return parts[i * s.partial_floats() + s.tile_rows * s.value_pitch + r]; };
    auto maximum_of = [&](int64_t i) { return parts[i * s.partial_floats() + s.tile_rows * (s.value_pitch + 1) + r]; };
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
    for (int64_t d = 0; d < p.dim_v; d++) to[d * p.out.sd] = narrow<T>(row[Chunk<T, kWords>::place_in_row(d)] * inverse);
    if (!p.lse) continue;
    float lse = sum == 0 ? -kInfinity : sum != sum ? sum : highest * kLn2 + log_positive(set1(sum))[0];
    p.lse[t.seq.batch * p.lse_sb + t.head_of(r) * p.lse_sh + t.query_of(r) * p.lse_sl] = lse;
  }
}

template <class T, Words kWords, int kRows>
void decode(const AttentionParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const Shape s(p, kRows);
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
    merge_ranges<T, kWords>(s, t, partials + place * s.ranges * s.partial_floats(), row);
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
  const FlushDenormals flush;
  if (p.dtype == DType::F32) decode_rows<float, Words::F32>(p, pool, cancel);
  else if (p.dtype == DType::F16) decode_rows<f16, Words::F32>(p, pool, cancel);
  else decode_rows<bf16, kHasBf16Dot ? Words::Bf16Pair : Words::F32>(p, pool, cancel);
}

}  // namespace fovea::cpu
