// A box of queries in lanes, the keys it visits in chunks, and the scores of a chunk: what forward and backward of the tile kernel share.
//
//   S^T [keys, queries] = K rows x Q^T      queries in lanes
//
// K and V rows are read through row pointers in their natural layout (16-bit ones are widened per chunk). A vector of queries skips blocks
// of keys that none of it sees; in those that not all of it sees, a pair that does not see each other gets -inf. For the sums of rows
// (neighborhood_row_sums.h) a chunk knows what a few neighbouring queries see: their windows differ by less than those of a vector.
#pragma once

#include "cpu/neighborhood_rows.h"

namespace fovea::cpu {
namespace {

constexpr int kChunkKeys = 96;

// Queries that sum rows of `dim` floats together: of short rows more, for enough accumulators.
constexpr int kFewQueries = 4, kManyQueries = kRegisters == 32 && kLanes >= 8 ? 8 : kFewQueries;
constexpr int kMostGroups = kVectors * kLanes / kFewQueries;
inline int group_size(int64_t dim) { return dim > 3 * kLanes ? kFewQueries : kManyQueries; }

struct Box {
  const NeighborhoodParams& p;
  Lattice lattice;
  const int group;  // queries of a group
  int64_t batch, head, head_kv;
  int count = 0, groups = 0;  // queries, lanes beyond repeat the last; groups of queries
  int64_t lo[3], hi[3];       // keys visited
  struct Seen {
    int64_t lo[3], hi[3];            // keys that any of a vector's queries sees
    int64_t full_lo[3], full_hi[3];  // keys that all of them see
  };
  Seen seen[kVectors];
  struct Keys {
    int32_t lo[3], hi[3];
  } keys[kMostGroups];  // that any of a group's queries sees
  alignas(64) int32_t at[3][kVectors * kLanes], token[3][kVectors * kLanes], begin[3][kVectors * kLanes], width[3][kVectors * kLanes];

  // `dim`: of the rows that are summed for every query.
  Box(const NeighborhoodParams& params, int64_t lattice_index, int64_t dim)
      : p(params), lattice(params, lattice_index), group(group_size(dim)) {}

  // False where the box lies outside this lattice (groups differ in length by one).
  bool place(const TileShape& shape, int64_t index, int64_t b) {
    batch = b;
    int64_t first[3], n[3];
    for (int a = 2; a >= 0; a--) {
      first[a] = index % shape.grid[a] * shape.tile[a];
      index /= shape.grid[a];
      n[a] = least(shape.tile[a], lattice.length[a] - first[a]);
      if (n[a] <= 0) return false;
      Range r = union_of(p.axis[a], lattice.length[a], first[a], n[a]);
      lo[a] = r.begin, hi[a] = r.end;
    }
    count = static_cast<int>(n[0] * n[1] * n[2]), groups = static_cast<int>(divide_up(count, group));
    const int lanes = shape.vectors * kLanes;
    int lane = 0;
    for (int64_t i = first[0]; i < first[0] + n[0]; i++)
      for (int64_t j = first[1]; j < first[1] + n[1]; j++)
        for (int64_t k = first[2]; k < first[2] + n[2]; k++, lane++)
          at[0][lane] = static_cast<int32_t>(i), at[1][lane] = static_cast<int32_t>(j), at[2][lane] = static_cast<int32_t>(k);
    for (; lane < lanes; lane++)
      for (auto& coordinate : at) coordinate[lane] = coordinate[count - 1];
    for (int a = 0; a < 3; a++) place_windows(a, lanes);
    return true;
  }

  void choose(int64_t query_head) { head = query_head, head_kv = head / (p.heads_q / p.heads_kv); }

  FOVEA_INLINE int64_t query_offset(const NeighborhoodTensor& t, int lane) const {
    return batch * t.sb + head * t.sh + token[0][lane] * t.sp[0] + token[1][lane] * t.sp[1] + token[2][lane] * t.sp[2];
  }
  FOVEA_INLINE int64_t row_of(int lane) const {  // of lse
    const int64_t flat = (token[0][lane] * p.axis[1].length + token[1][lane]) * p.axis[2].length + token[2][lane];
    return (batch * p.tokens + flat) * p.heads_q + head;
  }
  FOVEA_INLINE vi sees(int a, int64_t key, int z) const {
    vi distance = set1(static_cast<int32_t>(key)) - load(begin[a] + z * kLanes);
    return reinterpret_cast<vi>(reinterpret_cast<vu>(distance) < reinterpret_cast<vu>(load(width[a] + z * kLanes)));
  }

 private:
  // Windows of all lanes along an axis, and what vectors and groups of lanes see together.
  void place_windows(int a, int lanes) {
    const NeighborhoodAxis& axis = p.axis[a];
    const int32_t kernel = static_cast<int32_t>(axis.kernel), last = static_cast<int32_t>(lattice.length[a]) - kernel;
    int32_t *from = begin[a], *size = width[a];
    const int32_t dilation = static_cast<int32_t>(axis.dilation), residue = static_cast<int32_t>(lattice.group[a]);
    for (int i = 0; i < lanes; i++) token[a][i] = at[a][i] * dilation + residue;
    if (axis.stride == 1 && axis.causal) {
      for (int i = 0; i < lanes; i++) from[i] = greater(at[a][i] - kernel + 1, 0), size[i] = at[a][i] + 1 - from[i];
    } else if (axis.stride == 1) {
      for (int i = 0; i < lanes; i++) from[i] = smaller(greater(at[a][i] - kernel / 2, 0), last), size[i] = kernel;
    } else {
      for (int i = 0; i < lanes; i++) {
        const Range r = window_of(axis, lattice.length[a], at[a][i]);
        from[i] = static_cast<int32_t>(r.begin), size[i] = static_cast<int32_t>(r.end - r.begin);
      }
    }
    for (int g = 0; g < lanes / group; g++) {
      const auto [low, high] = ends(a, g * group, group, lanes);
      keys[g].lo[a] = from[low], keys[g].hi[a] = from[high] + size[high];
    }
    for (int z = 0; z < lanes / kLanes; z++) {
      const auto [low, high] = ends(a, z * kLanes, kLanes, lanes);
      seen[z].lo[a] = from[low], seen[z].hi[a] = from[high] + size[high];
      seen[z].full_lo[a] = from[high], seen[z].full_hi[a] = from[low] + size[low];
    }
  }
  // Of n lanes from `first` on, one with the first window along an axis and one with the last; windows only move forward. Lanes between
  // which a slower axis moves on meet both ends of this axis, where the first and the last of all lanes are.
  std::pair<int, int> ends(int a, int first, int n, int lanes) const {
    const int last = first + n - 1;
    for (int slower = 0; slower < a; slower++)
      if (at[slower][first] != at[slower][last]) return {0, lanes - 1};
    return {first, last};
  }
  static int32_t smaller(int32_t x, int32_t y) { return x < y ? x : y; }
  static int32_t greater(int32_t x, int32_t y) { return x > y ? x : y; }
};

// Fetches rows that are needed later, a few lines between products: those of the next box, which lie `step` elements further on than those
// of this box's queries, and those this box will write. More lines at a time would keep the products waiting for theirs.
template <int N>
class Ahead {
 public:
  struct Rows {
    const NeighborhoodTensor& tensor;
    int64_t dim, step;
  };
  Ahead(const Box& box, const Rows (&rows)[N]) : b_(box), rows_(rows) {}
  // Tokens from a query to the last key it sees along an axis: the one that no query before it sees.
  static int64_t newest(const NeighborhoodAxis& x) { return x.causal ? 0 : (x.kernel - 1) / 2 * x.dilation; }
  void operator()() {
    if (lane_ == b_.count) return;
    for (const Rows& r : rows_) {
      const char* row = element(r.tensor, b_.p.dtype, b_.query_offset(r.tensor, lane_) + r.step);
      for (int64_t at = 0; at < r.dim * element_bytes(b_.p.dtype); at += 64) __builtin_prefetch(row + at, 0, 2);
    }
    lane_++;
  }

 private:
  const Box& b_;
  const Rows (&rows_)[N];
  int lane_ = 0;
};

// Vectors [first, end) of a box see some of a block of kRowsOfTile keys; those with a bit in `full` see all of them, with all queries.
struct Block {
  uint8_t first, end, full;
};

// Up to kChunkKeys keys of a box: coordinates, and rows of k and v, of which the last is repeated to whole blocks.
struct Chunk {
  struct Run {
    uint8_t begin, end;
  };
  // Keys [begin, end) are neighbours along the last axis; `at`: coordinates of the first. Extra keys come last: at[0] is -1, at[2] their
  // number.
  struct Line {
    int begin, end;
    int32_t at[3];
  };
  int count, lines;
  bool first, last;  // of the box
  Line line[kChunkKeys];
  uint8_t runs[kMostGroups];
  Run run[kMostGroups][kChunkKeys];  // of keys that a group of queries sees
  Block block[kChunkKeys / kRowsOfTile];
  const float* k[kChunkKeys];
  const float* v[kChunkKeys];

  void add_run(int group, int64_t begin, int64_t end) {
    if (begin >= end) return;
    Run* last = run[group] + runs[group];
    if (runs[group] && last[-1].end == begin) last--;
    else *last = {static_cast<uint8_t>(begin), 0}, runs[group]++;
    last->end = static_cast<uint8_t>(end);
  }
};

// Walks the keys of a box, widening rows into `rows` [2][kChunkKeys][pitch] where they are not whole vectors of neighbouring f32.
class KeyWalk {
 public:
  KeyWalk(const Box& box, int vectors, float* rows, int64_t pitch) : b_(box), p_(box.p), vectors_(vectors), rows_(rows), pitch_(pitch) {
    for (int a = 0; a < 3; a++) c_[a] = b_.lo[a];
  }
  static bool copies(const NeighborhoodParams& p) {
    return p.dtype != DType::F32 || p.dim % kLanes || p.dim_v % kLanes || p.k.sd != 1 || p.v.sd != 1 ||
           (p.extra && (p.extra_k.sd != 1 || p.extra_v.sd != 1));
  }

  bool next(Chunk& chunk) {
    chunk.count = chunk.lines = 0;
    chunk.first = first_, first_ = false;
    for (Block& block : chunk.block) block = {static_cast<uint8_t>(vectors_), 0, 0};
    for (uint8_t& runs : chunk.runs) runs = 0;
    while (chunk.count < kChunkKeys && c_[0] < b_.hi[0]) {
      const int64_t n = least(b_.hi[2] - c_[2], kChunkKeys - chunk.count);
      add_row(chunk, n);
      c_[2] += n;
      if (c_[2] < b_.hi[2]) continue;
      c_[2] = b_.lo[2];
      if (++c_[1] < b_.hi[1]) continue;
      c_[1] = b_.lo[1];
      c_[0]++;
    }
    if (const int64_t n = least(p_.extra - extra_, kChunkKeys - chunk.count); n > 0) {
      for (int z = 0; z < vectors_; z++) mark(chunk, chunk.count, chunk.count + n, z, 0, 0);
      for (int g = 0; g < b_.groups; g++) chunk.add_run(g, chunk.count, chunk.count + n);
      const int64_t step_k = p_.extra_k.sp[2], step_v = p_.extra_v.sp[2];
      put(chunk, n, {-1, 0, extra_}, p_.extra_k, extra_ * step_k, step_k, p_.extra_v, extra_ * step_v, step_v);
      extra_ += n;
    }
    for (int j = chunk.count; j % kRowsOfTile; j++) chunk.k[j] = chunk.k[chunk.count - 1], chunk.v[j] = chunk.v[chunk.count - 1];
    chunk.last = c_[0] == b_.hi[0] && extra_ == p_.extra;
    return chunk.count > 0;
  }

 private:
  void add_row(Chunk& chunk, int64_t n) {
    for (int z = 0; z < vectors_; z++) {
      const Box::Seen& s = b_.seen[z];
      if (c_[0] < s.lo[0] || c_[0] >= s.hi[0] || c_[1] < s.lo[1] || c_[1] >= s.hi[1]) continue;
      const bool full = c_[0] >= s.full_lo[0] && c_[0] < s.full_hi[0] && c_[1] >= s.full_lo[1] && c_[1] < s.full_hi[1];
      const int64_t shift = chunk.count - c_[2], end = chunk.count + n;
      mark(chunk, most(s.lo[2] + shift, chunk.count), least(s.hi[2] + shift, end), z, most(s.full_lo[2] + shift, chunk.count),
           full ? least(s.full_hi[2] + shift, end) : 0);
    }
    for (int g = 0; g < b_.groups; g++) {
      const Box::Keys& s = b_.keys[g];
      if (c_[0] < s.lo[0] || c_[0] >= s.hi[0] || c_[1] < s.lo[1] || c_[1] >= s.hi[1]) continue;
      const int64_t shift = chunk.count - c_[2];
      chunk.add_run(g, most(s.lo[2] + shift, chunk.count), least(s.hi[2] + shift, chunk.count + n));
    }
    const int64_t dilation = p_.axis[2].dilation, k = offset_of(p_, b_.lattice, p_.k, c_[0], c_[1], c_[2]);
    const int64_t v = offset_of(p_, b_.lattice, p_.v, c_[0], c_[1], c_[2]);
    put(chunk, n, c_, p_.k, k, dilation * p_.k.sp[2], p_.v, v, dilation * p_.v.sp[2]);
  }

  // Vector z sees some of keys [from, to), and with all its queries keys [full_from, full_to).
  static void mark(Chunk& chunk, int64_t from, int64_t to, int z, int64_t full_from, int64_t full_to) {
    for (int64_t i = from / kRowsOfTile; i * kRowsOfTile < to && from < to; i++) {
      Block& block = chunk.block[i];
      block.first = static_cast<uint8_t>(least(block.first, z)), block.end = static_cast<uint8_t>(most(block.end, z + 1));
      if (full_from <= i * kRowsOfTile && (i + 1) * kRowsOfTile <= full_to) block.full |= static_cast<uint8_t>(1 << z);
    }
  }

  // Adds a line of n keys from coordinates `at` on; rows of k and v lie at an offset and a step, in elements.
  void put(Chunk& chunk, int64_t n, const int64_t (&at)[3], const NeighborhoodTensor& tk, int64_t k, int64_t step_k,
           const NeighborhoodTensor& tv, int64_t v, int64_t step_v) {
    const int begin = chunk.count, end = begin + static_cast<int>(n);
    chunk.line[chunk.lines++] = {begin, end, {static_cast<int32_t>(at[0]), static_cast<int32_t>(at[1]), static_cast<int32_t>(at[2])}};
    chunk.count = end;
    const char *row_k = row(tk, k), *row_v = row(tv, v);
    const int64_t bytes = element_bytes(p_.dtype);
    if (!rows_) {
      for (int j = begin; j < end; j++) chunk.k[j] = reinterpret_cast<const float*>(row_k) + (j - begin) * step_k;
      for (int j = begin; j < end; j++) chunk.v[j] = reinterpret_cast<const float*>(row_v) + (j - begin) * step_v;
      return;
    }
    for (int j = begin; j < end; j++, row_k += step_k * bytes, row_v += step_v * bytes) {
      float *to_k = rows_ + j * pitch_, *to_v = rows_ + (kChunkKeys + j) * pitch_;
      widen(p_.dtype, row_k, tk.sd, p_.dim, to_k);
      widen(p_.dtype, row_v, tv.sd, p_.dim_v, to_v);
      chunk.k[j] = to_k, chunk.v[j] = to_v;
    }
  }
  const char* row(const NeighborhoodTensor& t, int64_t offset) const {
    return element(t, p_.dtype, b_.batch * t.sb + b_.head_kv * t.sh + offset);
  }

  const Box& b_;
  const NeighborhoodParams& p_;
  const int vectors_;
  float* rows_;
  int64_t pitch_, c_[3], extra_ = 0;
  bool first_ = true;
};

// to[d][z] = factor * row of query z, lanes as columns, in `vectors` vectors; rows are at data + query_offset.
inline void pack_queries(const Box& b, const NeighborhoodTensor& t, int64_t dim, float factor, int vectors, float* to) {
  for (int z = 0; z < vectors; z++) {
    const char* rows[kLanes];
    for (int i = 0; i < kLanes; i++) rows[i] = element(t, b.p.dtype, b.query_offset(t, z * kLanes + i));
    pack_lanes(b.p.dtype, rows, t.sd, dim, factor, to + z * kLanes, int64_t{vectors} * kLanes);
  }
}

// Rows of a box's queries in a tensor, to be written by lane: the tensor's own where they are f32 in whole vectors, else those of `scratch`
// [lane][pitch], which finish() narrows. Lanes beyond the last query have theirs in `scratch` too.
class QueryRows {
 public:
  float* row[kVectors * kLanes];

  QueryRows(const Box& b, const NeighborhoodTensor& t, int64_t dim, float* scratch, int64_t pitch)
      : b_(b), t_(t), dim_(dim), direct_(b.p.dtype == DType::F32 && t.sd == 1 && dim == pitch) {
    for (int lane = 0; lane < b.groups * b.group; lane++)
      row[lane] = direct_ && lane < b.count ? static_cast<float*>(own(lane)) : scratch + lane * pitch;
  }
  void finish() const {
    if (direct_) return;
    for (int lane = 0; lane < b_.count; lane++) narrow_to(b_.p.dtype, row[lane], dim_, own(lane), t_.sd);
  }

 private:
  void* own(int lane) const { return const_cast<char*>(element(t_, b_.p.dtype, b_.query_offset(t_, lane))); }

  const Box& b_;
  const NeighborhoodTensor& t_;
  const int64_t dim_;
  const bool direct_;
};

// Calls visit.operator()<n>(begin, end, first) for runs of keys that vectors [first, first + n) see; whole blocks, so that end may lie
// beyond the last key.
template <int NZ, class Visit>
FOVEA_INLINE void each_run(const Chunk& chunk, Visit&& visit) {
  const int blocks = (chunk.count + kRowsOfTile - 1) / kRowsOfTile;
  for (int i = 0, next; i < blocks; i = next) {
    const Block& block = chunk.block[i];
    for (next = i + 1; next < blocks && chunk.block[next].first == block.first && chunk.block[next].end == block.end;) next++;
    const int begin = i * kRowsOfTile, end = next * kRowsOfTile, n = block.end - block.first;
    if (n == 1) visit.template operator()<1>(begin, end, block.first);
    if constexpr (NZ >= 2)
      if (n == 2) visit.template operator()<2>(begin, end, block.first);
    if constexpr (NZ >= 3)
      if (n == 3) visit.template operator()<3>(begin, end, block.first);
  }
}

// acc[i][z] = sum_w rows[i][w] * columns[w][z], words of a column `pitch` floats apart.
template <int N>
FOVEA_INLINE void multiply_tile(const float* const* rows, const float* columns, int64_t pitch, int64_t words, vf (&acc)[kRowsOfTile][N]) {
  FOVEA_UNROLL
  for (int i = 0; i < kRowsOfTile; i++) FOVEA_UNROLL
  for (int z = 0; z < N; z++) acc[i][z] = zero();
  const float* row[kRowsOfTile];
  FOVEA_UNROLL
  for (int i = 0; i < kRowsOfTile; i++) row[i] = rows[i];
  for (int64_t w = 0; w < words; w++, columns += pitch) {
    vf b[N];
    FOVEA_UNROLL
    for (int z = 0; z < N; z++) b[z] = load(columns + z * kLanes);
    FOVEA_UNROLL
    for (int i = 0; i < kRowsOfTile; i++) {
      const vf a = broadcast(row[i] + w);
      FOVEA_UNROLL
      for (int z = 0; z < N; z++) acc[i][z] = fma(a, b[z], acc[i][z]);
    }
  }
}

// to[j][z] = rows[j] . columns of z, where z sees some of a block of keys. meanwhile() is called between blocks.
template <int NZ, class Meanwhile>
__attribute__((noinline)) void multiply_rows(const Chunk& chunk, const float* const* rows, const float* columns, int64_t words, float* to,
                                             Meanwhile&& meanwhile) {
  each_run<NZ>(chunk, [&]<int N>(int begin, int end, int first) {
    for (int j = begin; j < end; j += kRowsOfTile) {
      vf acc[kRowsOfTile][N];
      multiply_tile<N>(rows + j, columns + first * kLanes, NZ * kLanes, words, acc);
      FOVEA_UNROLL
      for (int i = 0; i < kRowsOfTile; i++) FOVEA_UNROLL
      for (int z = 0; z < N; z++) store(to + ((j + i) * NZ + first + z) * kLanes, acc[i][z]);
      meanwhile();
    }
  });
}

// Index of a query's and a key's coordinates in one head of the bias table: their difference, see NeighborhoodParams::rpb.
struct BiasIndex {
  int64_t step[3];
  int64_t size;
  explicit BiasIndex(const NeighborhoodParams& p) {
    step[2] = 1;
    step[1] = 2 * p.axis[2].kernel - 1;
    step[0] = step[1] * (2 * p.axis[1].kernel - 1);
    size = step[0] * (2 * p.axis[0].kernel - 1);
  }
  int64_t key(const NeighborhoodParams& p, const int32_t* at) const {
    int64_t index = 0;
    for (int a = 0; a < 3; a++) index += (at[a] + p.axis[a].kernel - 1) * step[a];
    return index;
  }
  int64_t query(const Box& b, int lane) const { return b.at[0][lane] * step[0] + b.at[1][lane] * step[1] + b.at[2][lane]; }
};

// Sets the scores of pairs that do not see each other to -inf, after adding the bias. Rows are [key][z].
template <int NZ>
void finish_scores(const Box& b, const Chunk& chunk, const int32_t* bias_of_query, float* scores) {
  const NeighborhoodParams& p = b.p;
  const BiasIndex index(p);
  const float* table = p.rpb ? p.rpb + b.head * index.size : nullptr;
  const vf hidden = set1(-__builtin_inff());
  for (int z = 0; z < NZ; z++)
    for (const Chunk::Line* line = chunk.line; line < chunk.line + chunk.lines && line->at[0] >= 0; line++) {
      const vi outer = b.sees(0, line->at[0], z) & b.sees(1, line->at[1], z);
      const vi query = table ? load(bias_of_query + z * kLanes) : vi{};
      for (int j = line->begin, end; j < line->end; j = end) {
        const Block& block = chunk.block[j / kRowsOfTile];
        end = static_cast<int>(least((j / kRowsOfTile + 1) * kRowsOfTile, line->end));
        if (z < block.first || z >= block.end || ((block.full >> z & 1) && !table)) continue;
        for (int i = j; i < end; i++) {
          float* to = scores + (i * NZ + z) * kLanes;
          const vi seen = outer & b.sees(2, line->at[2] + i - line->begin, z);
          vf s = load(to);
          if (table) {
            const int64_t key = index.key(p, line->at) + i - line->begin;
            const vi which = select(seen, set1(static_cast<int32_t>(key)) - query, vi{});
            vf bias;
            FOVEA_UNROLL
            for (int lane = 0; lane < kLanes; lane++) bias[lane] = table[which[lane]];
            s = fma(bias, set1(kLog2E), s);
          }
          store(to, select(seen, s, hidden));
        }
      }
    }
}

}  // namespace
}  // namespace fovea::cpu
