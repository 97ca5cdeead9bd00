// Similarities are made and selected from a part at a time, lists of tokens and then clusters, so that they stay in the cache between the
// two kernels and take no more memory than a few rows.
#include "cuda/cluster_top.h"

#include <algorithm>
#include <cstdio>

#include "cuda/cluster_top_params.h"
#include "cuda/grid.h"
#include "cuda/select_top.h"

namespace fovea::cuda {
namespace {

constexpr int64_t kTokens = 128, kClusters = 64;  // of a block's tile
constexpr int64_t kMostElements = int64_t{8} << 20;

bool rows_wide(const ClusterTopParams& p) {
  const AttentionTensor& x = p.x;
  const int64_t step = p.dtype == DType::F32 ? 4 : 8;  // of 16 bytes
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && (x.sb | x.sh | x.sl) % step == 0;
}

}  // namespace

void cluster_top(const ClusterTopParams& p, Stream& stream) {
  const int64_t all_lists = p.batch * p.heads, fitting = std::max<int64_t>(kMostElements / p.length, kClusters);
  const int64_t clusters = std::min(p.clusters, fitting / kClusters * kClusters);
  const int64_t lists = clusters < p.clusters ? 1 : std::clamp<int64_t>(fitting / clusters, 1, all_lists);
  const Scratch similarities = stream.scratch(static_cast<size_t>(lists * clusters * p.length) * sizeof(float));
  char kernel[32];
  std::snprintf(kernel, sizeof kernel, "cluster_top_%s", name_of(p.dtype));
  for (int64_t list = 0; list < all_lists; list += lists)
    for (int64_t cluster = 0; cluster < p.clusters; cluster += clusters) {
      ClusterSimilarityParams part{p, similarities.data<float>(), list, 0, cluster, 0, rows_wide(p)};
      part.lists = std::min(lists, all_lists - list), part.clusters = std::min(clusters, p.clusters - cluster);
      const int64_t token_tiles = (p.length + kTokens - 1) / kTokens, cluster_tiles = (part.clusters + kClusters - 1) / kClusters;
      stream.launch(kernel, grid_of(part.lists * cluster_tiles * token_tiles), {kThreads}, 0, part);
      int32_t* indices = p.indices + (list * p.clusters + cluster) * p.window;
      select_top({part.similarities, DType::F32, part.lists * part.clusters, p.length, p.window, indices}, stream);
    }
}

}  // namespace fovea::cuda
