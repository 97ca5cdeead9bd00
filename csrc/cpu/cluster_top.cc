// Two rounds: similarities of blocks of tokens to all centroids of their head, then the selection row by row.
//
// Tokens are in lanes: a block is transposed once, multiplied with register tiles of centroid rows, and its products are divided by the
// lengths of the tokens when they are stored. Unit vectors are never made.
#include "cpu/cluster_top.h"

#include "cpu/attention_math.h"
#include "cpu/select_row.h"

namespace fovea::cpu {
namespace {

constexpr int kTokens = kVectors * kLanes;  // of a register tile
constexpr int64_t kBlockTokens = 4 * kTokens;
constexpr float kSmallestLength = 1e-12f;

// Tokens [first, first + kTokens) as [dim][kTokens], those from `end` on 0, and 1 / length of each.
template <class T>
void pack(const ClusterTopParams& p, const T* head, int64_t first, int64_t end, float* packed, float* inverse) {
  for (int z = 0; z < kVectors; z++) {
    const int64_t left = end - first - z * kLanes;
    const int rows = left < 0 ? 0 : left < kLanes ? static_cast<int>(left) : kLanes;
    const T* x = head + (first + z * kLanes) * p.x.sl;
    vf squares = zero();
    for (int64_t d = 0; d < p.dim; d += kLanes) {
      const int width = p.dim - d < kLanes ? static_cast<int>(p.dim - d) : kLanes;
      vf v[kLanes];
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) v[i] = i < rows ? load_part(x + i * p.x.sl + d, width) : zero();
      transpose(v);
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) {
        squares = fma(v[i], v[i], squares);
        if (i < width) store(packed + (d + i) * kTokens + z * kLanes, v[i]);
      }
    }
    for (int l = 0; l < kLanes; l++)
      squares[l] = 1.f / (__builtin_sqrtf(squares[l]) > kSmallestLength ? __builtin_sqrtf(squares[l]) : kSmallestLength);
    store(inverse + z * kLanes, squares);
  }
}

template <class T>
void similarities(const ClusterTopParams& p, int64_t list, int64_t begin, int64_t end, int64_t pitch, float* packed) {
  const int64_t head = list % p.heads;
  const T* x = static_cast<const T*>(p.x.data) + list / p.heads * p.x.sb + head * p.x.sh;
  const float* centroids = p.centroids + head * p.clusters * p.dim;
  alignas(64) float inverse[kTokens];
  for (int64_t first = begin; first < end; first += kTokens) {
    pack(p, x, first, end, packed, inverse);
    for (int64_t c = 0; c < p.clusters; c += kRowsOfTile) {
      const float* rows[kRowsOfTile];
      for (int i = 0; i < kRowsOfTile; i++) rows[i] = centroids + (c + i < p.clusters ? c + i : p.clusters - 1) * p.dim;
      vf acc[kRowsOfTile][kVectors];
      score_tile<kVectors, Words::F32>(rows, packed, static_cast<int>(p.dim), acc, [](int) {});
      float* to = p.similarity + (list * p.clusters + c) * pitch + first;
      FOVEA_UNROLL
      for (int i = 0; i < kRowsOfTile; i++) FOVEA_UNROLL
      for (int z = 0; z < kVectors; z++)
        if (c + i < p.clusters && first + z * kLanes < end) store(to + i * pitch + z * kLanes, acc[i][z] * load(inverse + z * kLanes));
    }
  }
}

template <class T>
void run(const ClusterTopParams& p, ThreadPool& pool) {
  const int64_t pitch = (p.length + kSimilarityPitch - 1) / kSimilarityPitch * kSimilarityPitch;
  const int64_t lists = p.batch * p.heads, blocks = (p.length + kBlockTokens - 1) / kBlockTokens;
  pool.run(lists * blocks, [&](int64_t tile, int thread) {
    float* packed = static_cast<float*>(pool.scratch(thread, static_cast<size_t>(p.dim * kTokens) * 4));
    const int64_t begin = tile % blocks * kBlockTokens, end = begin + kBlockTokens < p.length ? begin + kBlockTokens : p.length;
    similarities<T>(p, tile / blocks, begin, end, pitch, packed);
  });
  pool.run(lists * p.clusters, [&](int64_t row, int thread) {
    uint32_t* scratch = static_cast<uint32_t*>(pool.scratch(thread, static_cast<size_t>(select_words(p.length)) * 4));
    select_row(p.similarity + row * pitch, p.length, p.window, p.indices + row * p.window, scratch);
  });
}

}  // namespace

template <>
void cluster_top<kIsa>(const ClusterTopParams& p, ThreadPool& pool) {
  switch (p.dtype) {
    case DType::BF16: return run<bf16>(p, pool);
    case DType::F16: return run<f16>(p, pool);
    default: return run<float>(p, pool);
  }
}

}  // namespace fovea::cpu
