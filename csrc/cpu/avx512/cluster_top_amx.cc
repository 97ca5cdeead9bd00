// cluster_top with similarities of the tile unit, whose error is known, and exact ones where that decides.
//
// Tokens are rows of A, split into bf16 parts by cutting their bits: x = high + low, and x . c is the sum of three products of parts. As in
// cluster_top.cc a sample of the tokens gives every cluster a bound, what reaches it is listed block by block, and the last round selects
// from the lists: tokens further from the k-th similarity than the errors of both can reach are in or out, those between get the similarity
// that cluster_top_params.h defines. A cluster about which nothing can be said (a bound was too high, numbers beyond kLargest or none) is
// selected from exact similarities of all tokens.
#include "core/call_memory.h"
#include "cpu/amx.h"
#include "cpu/cluster_similarity.h"
#include "cpu/cluster_top.h"
#include "cpu/pieces.h"
#include "cpu/select_row.h"

namespace fovea::cpu {
namespace {

constexpr int kGroup = 2 * kTileRows;  // tokens multiplied at once, and clusters
constexpr float kLargest = 0x1p50f;    // length of tokens and centroids: products stay finite
constexpr uint32_t kHighestKey = 0xffffffffu;
constexpr int kRowsFetched = 3;                         // at once
constexpr int64_t kSamplePitch = kTileSample + kLanes;  // no power of two, as clusters are written side by side
constexpr int32_t kPlaceMask = (1 << 10) - 1;           // of an entry: a place within its block below the upper bits of a similarity
static_assert(kClusterBlock <= kPlaceMask + 1);
constexpr int kTileElements = 2 * kTileRows * kTileWords;  // bf16 of an operand tile

FOVEA_INLINE uint32_t key_of(float x) { return keys_of(set1(x))[0]; }

// result[l] = sum of v[l].
template <int kStep = 1>
FOVEA_INLINE vf sum_each(vf (&v)[kLanes]) {
  if constexpr (kStep < kLanes) {
    FOVEA_UNROLL
    for (int i = 0; i < kLanes; i += 2 * kStep) {
      butterfly_step<kStep>(v[i], v[i + kStep]);
      v[i] += v[i + kStep];
    }
    return sum_each<2 * kStep>(v);
  }
  return v[0];
}

// The upper halves of 32 words.
FOVEA_INLINE __m512i upper_halves(vf a, vf b) {
  alignas(64) static constexpr uint16_t kOdd[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                    33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return _mm512_permutex2var_epi16(reinterpret_cast<__m512i>(a), _mm512_load_si512(kOdd), reinterpret_cast<__m512i>(b));
}

FOVEA_INLINE vf cut_off(vf x) { return x - reinterpret_cast<vf>(reinterpret_cast<vu>(x) & 0xffff0000u); }

// Rows row(0), .. of `count`, at most kTileRows, as high and low parts, `pitch` elements each; elements beyond dim are 0. Returns the
// squares of their lengths.
template <bool kLow, class Row>
FOVEA_INLINE vf split_rows(int64_t dim, int64_t pitch, int count, Row&& row, bf16* high, bf16* low) {
  vf squares[kLanes];
  FOVEA_UNROLL
  for (int i = 0; i < kTileRows; i++) squares[i] = zero();
  for (int i = 0; i < count; i++) {
    const auto* x = row(i);
    vf sum = zero();
    for (int64_t d = 0; d < pitch; d += kTileDepth) {
      auto part = [&](int64_t first) __attribute__((always_inline)) {
        const int64_t left = dim - first;
        return left >= kLanes ? load(x + first) : left > 0 ? load_part(x + first, static_cast<int>(left)) : zero();
      };
      const vf a = part(d), b = part(d + kLanes);
      sum = fma(b, b, fma(a, a, sum));
      _mm512_storeu_si512(high + i * pitch + d, upper_halves(a, b));
      if constexpr (kLow) _mm512_storeu_si512(low + i * pitch + d, upper_halves(cut_off(a), cut_off(b)));
    }
    squares[i] = sum;
  }
  return sum_each(squares);
}

template <class T>
class ClusterTiles {
 public:
  explicit ClusterTiles(const ClusterTopParams& params)
      : p(params),
        blocks_((p.length + kClusterBlock - 1) / kClusterBlock),
        dim_((p.dim + kTileDepth - 1) / kTileDepth * kTileDepth),
        clusters_((p.clusters + kGroup - 1) / kGroup * kGroup),
        memory_(cut(nullptr)) {
    cut(memory_.data);
  }

  void run(ThreadPool& pool) {
    const int64_t lists = p.batch * p.heads;
    auto memory = [&](int thread) { return Memory(*this, pool.scratch(thread, static_cast<size_t>(Memory(*this, nullptr).bytes))); };
    pool.run(lists, [&](int64_t list, int thread) { find_bounds(list, memory(thread)); });
    pool.run(lists * blocks_, [&](int64_t tile, int thread) { collect(tile / blocks_, tile % blocks_, memory(thread)); });
    pool.run(lists * p.clusters, [&](int64_t tile, int thread) { choose(tile / p.clusters, tile % p.clusters, memory(thread)); });
  }

 private:
  static constexpr bool kLow = sizeof(T) == 4 || __is_same(T, f16);  // a bf16 is its own high part

  struct Memory {
    bf16 *high, *low;         // [kGroup][dim_]
    float* inverse;           // [kGroup]: 1 / length
    float* scores;            // [kGroup][clusters_]
    float* bounds;            // [clusters_]
    int32_t *hits, *entries;  // of a block: clusters and what is listed in them
    uint32_t* keys;           // of a sample or of what is selected from
    uint32_t* exact;          // keys of what a selection depends on
    float* packed;
    int64_t bytes;

    Memory(const ClusterTiles& c, void* block) {
      Pieces pieces(block);
      high = pieces.take<bf16>(kGroup * c.dim_);
      low = pieces.take<bf16>(kGroup * c.dim_);
      inverse = pieces.take(kGroup);
      scores = pieces.take(kGroup * c.clusters_);
      bounds = pieces.take(c.clusters_);
      hits = pieces.take<int32_t>(kClusterBlock * c.clusters_ + kLanes);
      entries = pieces.take<int32_t>(kClusterBlock * c.clusters_ + kLanes);
      const int64_t sample = kSamplePitch * c.clusters_, row = select_words(c.p.length) + kLanes;
      keys = pieces.take<uint32_t>(sample > row ? sample : row);
      exact = pieces.take<uint32_t>(c.p.length + kTokens);
      packed = pieces.take(static_cast<int64_t>(PackedTokens::floats(c.p.dim)));
      bytes = pieces.bytes();
    }
  };

  int64_t cut(void* block) {
    const int64_t lists = p.batch * p.heads;
    Pieces pieces(block);
    entries_ = pieces.take<int32_t>(lists * blocks_ * p.clusters * kClusterPitch);
    counts_ = pieces.take<int32_t>(lists * blocks_ * p.clusters);
    bounds_ = pieces.take(lists * p.clusters);
    table_ = pieces.take<bf16>(lists * 2 * dim_ * clusters_);
    return pieces.bytes();
  }

  const T* head(int64_t list) const { return static_cast<const T*>(p.x.data) + list / p.heads * p.x.sb + list % p.heads * p.x.sh; }
  const float* centroid(int64_t list, int64_t c) const { return p.centroids + (list % p.heads * p.clusters + c) * p.dim; }
  float* bounds(int64_t list) const { return bounds_ + list * p.clusters; }
  int32_t& count_at(int64_t list, int64_t block, int64_t c) const { return counts_[(list * blocks_ + block) * p.clusters + c]; }
  int64_t place_of(int64_t list, int64_t block, int64_t c) const { return ((list * blocks_ + block) * p.clusters + c) * kClusterPitch; }
  // Operand tiles of centroids: [list][high, low][depth][tile of clusters].
  bf16* table(int64_t list, int part, int64_t d, int64_t c) const {
    const int64_t tiles = clusters_ / kTileRows, depth = dim_ / kTileDepth;
    return table_ + (((list * 2 + part) * depth + d / kTileDepth) * tiles + c / kTileRows) * kTileElements;
  }

  // How far a similarity of the tile unit may be from the exact one; infinite where nothing is known.
  float margin(int64_t list, int64_t c) const {
    const float* x = centroid(list, c);
    vf sum = zero();
    for_lanes(p.dim, [&](int64_t d, int lanes) {
      const vf part = load_part(x + d, lanes);
      sum = fma(part, part, sum);
    });
    const float squares = reduce_add(sum);
    if (!(squares <= kLargest * kLargest)) return __builtin_inff();
    // Three products of parts cut to 8 bits, the upper bits of an entry, and the sums of both; denormals are zero to the tile unit.
    const float cut = 3.25f * 0x1p-14f + 0x1p-13f, rounded = static_cast<float>(p.dim + 8) * 0x1p-21f;
    return 1.001f * __builtin_sqrtf(squares) * (cut + rounded) + 1e-20f;
  }

  void split_centroids(int64_t list, const Memory& m) const {
    for (int64_t c = 0; c < clusters_; c += kTileRows) {
      const int rows = p.clusters - c < kTileRows ? static_cast<int>(p.clusters > c ? p.clusters - c : 0) : kTileRows;
      __builtin_memset(m.high, 0, static_cast<size_t>(kTileRows * dim_) * 2);
      __builtin_memset(m.low, 0, static_cast<size_t>(kTileRows * dim_) * 2);
      split_rows<true>(
          p.dim, dim_, rows, [&](int i) { return centroid(list, c + i); }, m.high, m.low);
      for (int part = 0; part < 2; part++)
        for (int64_t d = 0; d < dim_; d += kTileDepth) {
          vf v[kLanes];
          FOVEA_UNROLL
          for (int i = 0; i < kLanes; i++) v[i] = load(reinterpret_cast<const float*>((part ? m.low : m.high) + i * dim_ + d));
          transpose(v);
          float* to = reinterpret_cast<float*>(table(list, part, d, c));
          FOVEA_UNROLL
          for (int i = 0; i < kLanes; i++) store(to + i * kLanes, v[i]);
        }
    }
  }

  // Similarities of `count` tokens at row(0), .. to all clusters, to m.scores. False if one is too long for that.
  template <class Row>
  FOVEA_INLINE bool compare(int64_t list, int count, Row&& row, const Memory& m) const {
    vi fine = set1(-1);
    for (int first = 0; first < count; first += kTileRows) {
      const int rows = count - first < kTileRows ? count - first : kTileRows;
      const vf squares = split_rows<kLow>(
          p.dim, dim_, rows, [&](int i) __attribute__((always_inline)) { return row(first + i); }, m.high + first * dim_,
          m.low + first * dim_);
      fine &= squares <= set1(kLargest * kLargest);
      const vf length = _mm512_sqrt_ps(squares);
      store(m.inverse + first, set1(1.f) / max(length, set1(kSmallestLength)));
    }
    multiply(list, m, Ahead(row(kGroup), row(kGroup + 1), p.dim));
    return _mm512_movepi32_mask(reinterpret_cast<__m512i>(fine)) == 0xffff;
  }

  // The tokens of the next group: they are far, and products take long, so some are fetched with every four.
  struct Ahead {
    const char* row;
    int64_t step, bytes;
    int left = kGroup;

    Ahead(const T* first, const T* second, int64_t dim)
        : row(reinterpret_cast<const char*>(first)),
          step((second - first) * static_cast<int64_t>(sizeof(T))),
          bytes(dim * static_cast<int64_t>(sizeof(T))) {}
    FOVEA_INLINE void fetch() {
      for (int i = 0; i < kRowsFetched && left > 0; i++, left--, row += step)
        for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(row + b);
    }
  };

  // Two tiles of tokens (registers 4, 5) by two of centroids (6, 7) at a time.
  FOVEA_INLINE void multiply(int64_t list, const Memory& m, Ahead ahead) const {
    const int64_t row_bytes = dim_ * 2, score_bytes = clusters_ * 4;
    for (int64_t c = 0; c < clusters_; c += kGroup) {
      each_tile<4>([]<int i>() { tile_zero<i>(); });
      auto tokens = [&](const bf16* rows, int64_t d) __attribute__((always_inline)) {
        tile_load<4>(rows + d, row_bytes);
        tile_load<5>(rows + kTileRows * dim_ + d, row_bytes);
      };
      auto times = [&](int part, int64_t d) __attribute__((always_inline)) {
        const bf16* tiles = table(list, part, d, c);
        ahead.fetch();
        tile_load<6>(tiles, kVectorBytes);
        tile_load<7>(tiles + kTileElements, kVectorBytes);
        tile_multiply<0, 4, 6>();
        tile_multiply<1, 4, 7>();
        tile_multiply<2, 5, 6>();
        tile_multiply<3, 5, 7>();
      };
      for (int64_t d = 0; d < dim_; d += kTileDepth) {
        tokens(m.high, d);
        times(1, d);
        times(0, d);
        if constexpr (kLow) {
          tokens(m.low, d);
          times(0, d);
        }
      }
      float* scores = m.scores + c;
      tile_store<0>(scores, score_bytes);
      tile_store<1>(scores + kTileRows, score_bytes);
      tile_store<2>(scores + kTileRows * clusters_, score_bytes);
      tile_store<3>(scores + kTileRows * clusters_ + kTileRows, score_bytes);
    }
  }

  // A bound above which there are hardly fewer tokens than wanted: the number of those of the sample is three standard deviations more
  // than what is expected.
  void find_bounds(int64_t list, const Memory& m) const {
    const TileUnit unit(kTileRows);
    split_centroids(list, m);
    const int64_t step = p.length / kTileSample;
    bool fine = true;
    for (int64_t t = 0; t < kTileSample; t += kGroup) {
      fine &= compare(
          list, kGroup, [&](int i) { return head(list) + (t + i) * step * p.x.sl; }, m);
      for (int64_t c = 0; c < clusters_; c += kLanes)
        for (int first = 0; first < kGroup; first += kLanes) {
          vf v[kLanes];
          FOVEA_UNROLL
          for (int i = 0; i < kLanes; i++) v[i] = load(m.scores + (first + i) * clusters_ + c) * set1(m.inverse[first + i]);
          transpose(v);
          FOVEA_UNROLL
          for (int i = 0; i < kLanes; i++)
            store(reinterpret_cast<int32_t*>(m.keys + (c + i) * kSamplePitch + t + first), reinterpret_cast<vi>(keys_of(v[i])));
        }
    }
    for (int64_t c = 0; c < p.clusters; c++)
      bounds(list)[c] = fine ? number_of(bisect(m.keys + c * kSamplePitch, kTileSample, tile_sample_rank(p), 1)) : __builtin_inff();
  }

  // Appends what reaches the bounds to the hits of a block, in which the group begins at `first`. Returns how many those are then.
  FOVEA_INLINE int64_t find_hits(const Memory& m, int count, int first, int64_t hits) const {
    const int64_t clusters = clusters_;
    const float *scores = m.scores, *bounds = m.bounds;
    int32_t *entries = m.entries + hits, *ids = m.hits + hits;
    for (int i = 0; i < count; i++, scores += clusters) {
      const vf inverse = set1(m.inverse[i]);
      const vi place = set1(first + i);
      vi id = iota();
      for (int64_t c = 0; c < clusters; c += kLanes, id += kLanes) {
        const vf similarity = load(scores + c) * inverse;
        const vi entry = (reinterpret_cast<vi>(similarity) & set1(~kPlaceMask)) | place;
        const __mmask16 hit = _mm512_cmp_ps_mask(similarity, load(bounds + c), _CMP_GE_OQ);
        compress(hit, entry, entries);
        const int64_t found = compress(hit, id, ids);
        entries += found, ids += found;
      }
    }
    return ids - m.hits;
  }

  // Lists the tokens of a block that reach the bounds; -1 of them where one is too long.
  void collect(int64_t list, int64_t block, const Memory& m) const {
    const TileUnit unit(kTileRows);
    const int64_t begin = block * kClusterBlock, end = begin + kClusterBlock < p.length ? begin + kClusterBlock : p.length;
    int32_t* counts = &count_at(list, block, 0);
    for (int64_t c = 0; c < p.clusters; c++) counts[c] = 0;
    for (int64_t c = 0; c < clusters_; c++) m.bounds[c] = c < p.clusters ? bounds(list)[c] : __builtin_inff();
    int32_t* listed = entries_ + place_of(list, block, 0);
    for (int64_t c = 0; c < p.clusters; c++) __builtin_prefetch(listed + c * kClusterPitch, 1);
    bool fine = true;
    int64_t hits = 0;
    for (int64_t t = begin; t < end; t += kGroup) {
      const int count = end - t < kGroup ? static_cast<int>(end - t) : kGroup;
      fine &= compare(
          list, count, [&](int i) __attribute__((always_inline)) { return head(list) + (t + i) * p.x.sl; }, m);
      hits = find_hits(m, count, static_cast<int>(t - begin), hits);
    }
    // Not before: tile loads wait for stores to lines that are far.
    for (int64_t h = 0; h < hits; h++) {
      const int64_t c = m.hits[h];
      int32_t* at = listed + c * kClusterPitch + counts[c]++;
      __builtin_prefetch(at + kLanes, 1);
      *at = m.entries[h];
    }
    for (int64_t c = 0; !fine && c < p.clusters; c++) counts[c] = -1;
  }

  void choose(int64_t list, int64_t c, const Memory& m) const {
    int32_t* out = p.indices + (list * p.clusters + c) * p.window;
    Kept kept(m.keys, p.length);
    const float error = margin(list, c);
    bool known = error < __builtin_inff();
    for (int64_t b = 0; known && b < blocks_; b++) {
      const int32_t* listed = entries_ + place_of(list, b, c);
      const vi mask = set1(kPlaceMask), first = set1(static_cast<int32_t>(b * kClusterBlock));
      const int64_t count = count_at(list, b, c), at = kept.count;
      for (int64_t i = 0; i < count; i += kLanes) {
        const vi entry = load(listed + i);
        store(reinterpret_cast<int32_t*>(kept.keys + at + i), reinterpret_cast<vi>(keys_of(reinterpret_cast<vf>(entry & ~mask))));
        store(kept.places + at + i, (entry & mask) + first);
      }
      known = count >= 0;
      kept.count += count;
    }
    if (!known || kept.count < p.window) return choose_exactly(list, c, m, out);
    kept.end(kept.count);
    const float bound = bounds(list)[c], last = number_of(bisect(kept.keys, kept.count, p.window, key_of(bound - error)));
    // Of what is not listed nothing may be needed.
    if (last - 3 * error < bound) return choose_exactly(list, c, m, out);
    take_kept(kept, p.window, settle(list, c, last, error, kept, m), out);
  }

  // Drops what is surely not among the nearest and gives what surely is the highest key; the others get exact ones if it depends on them.
  // Returns the bound of those to take.
  uint32_t settle(int64_t list, int64_t c, float last, float error, Kept& kept, const Memory& m) const {
    const vu least = vu{} + key_of(last - 2 * error), most = vu{} + key_of(last + 2 * error);
    int64_t count = 0, sure = 0;
    for (int64_t i = 0; i < kept.count; i += kLanes) {
      const vu key = load_keys(kept.keys + i);
      const vi in = reinterpret_cast<vi>(key > most);
      vi hit = reinterpret_cast<vi>(key >= least);
      if (kept.count - i < kLanes) hit &= first_lanes(static_cast<int>(kept.count - i));
      sure += __builtin_popcount(_mm512_movepi32_mask(reinterpret_cast<__m512i>(in & hit)));
      compress(hit, load(kept.places + i), kept.places + count);
      count += compress(hit, in, kept.keys + count);
    }
    kept.end(count);
    const int64_t wanted = p.window - sure, open = count - sure;
    if (wanted == open) return 0;
    if (wanted == 0) return kHighestKey;
    const PackedTokens packed(m.packed, p.dim);
    int64_t known = 0;
    for (int64_t i = 0; known < open;) {
      int32_t* places = m.hits;
      int found = 0;
      for (; i < count && found <= kTokens - kLanes; i += kLanes) {
        vi hit = reinterpret_cast<vi>(load_keys(kept.keys + i)) == set1(0);
        if (count - i < kLanes) hit &= first_lanes(static_cast<int>(count - i));
        found += static_cast<int>(compress(hit, iota() + set1(static_cast<int32_t>(i)), places + found));
      }
      exact_keys(
          list, c, found, [&](int j) { return int64_t{kept.places[places[j]]}; }, packed, m.exact + known);
      for (int j = 0; j < found; j++) kept.keys[places[j]] = m.exact[known + j];
      known += found;
    }
    for (int l = 0; l < kLanes; l++) m.exact[open + l] = 0;
    return bisect(m.exact, open, wanted, 1);
  }

  // Keys of the similarities of tokens place(0), .. of `count` to a cluster, in whole vectors.
  template <class Place>
  void exact_keys(int64_t list, int64_t c, int count, Place&& place, const PackedTokens& packed, uint32_t* keys) const {
    pack_tokens(
        p.dim, count, [&](int i) { return head(list) + place(i) * p.x.sl; }, packed);
    const float* x = centroid(list, c);
    for (int first = 0; first < count; first += kLanes) {
      vf sum = zero();
      for (int64_t d = 0; d < p.dim; d++) sum = fma(set1(x[d]), load(packed.words + d * kTokens + first), sum);
      store(reinterpret_cast<int32_t*>(keys + first), reinterpret_cast<vi>(keys_of(sum * load(packed.inverse + first))));
    }
  }

  void choose_exactly(int64_t list, int64_t c, const Memory& m, int32_t* out) const {
    Kept all(m.keys, p.length);
    for (int64_t t = 0; t < p.length; t += kTokens) {
      const int count = p.length - t < kTokens ? static_cast<int>(p.length - t) : kTokens;
      exact_keys(
          list, c, count, [&](int i) { return t + i; }, PackedTokens(m.packed, p.dim), all.keys + t);
      for (int i = 0; i < count; i += kLanes) store(all.places + t + i, iota() + set1(static_cast<int32_t>(t + i)));
    }
    all.end(p.length);
    select_kept(all, p.window, 0, out);
  }

  const ClusterTopParams& p;
  const int64_t blocks_, dim_, clusters_;  // the last two of whole tiles
  int32_t* entries_;                       // [list, block, cluster][kClusterPitch]
  int32_t* counts_;                        // [list, block, cluster]
  float* bounds_;                          // [list, cluster]
  bf16* table_;                            // see table()
  const CallMemory memory_;
};

}  // namespace

void cluster_top_amx(const ClusterTopParams& p, ThreadPool& pool) {
  switch (p.dtype) {
    case DType::BF16: return ClusterTiles<bf16>(p).run(pool);
    case DType::F16: return ClusterTiles<f16>(p).run(pool);
    default: return ClusterTiles<float>(p).run(pool);
  }
}

}  // namespace fovea::cpu
