#include "cuda/region_top.h"

#include <algorithm>
#include <cstdio>

#include "cuda/grid.h"
#include "cuda/region_top_params.h"

namespace fovea::cuda {
namespace {

bool vectors_of_four(const RegionTopParams& p) {
  const size_t bytes = 4 * size_of(p.dtype);
  return p.channels % 4 == 0 && reinterpret_cast<uintptr_t>(p.q) % bytes == 0 && reinterpret_cast<uintptr_t>(p.k) % bytes == 0;
}

}  // namespace

void region_top(const RegionTopParams& p, Stream& stream) {
  const int64_t regions = p.down * p.across, groups = p.batch * ((regions + kRegionTopRows - 1) / kRegionTopRows);
  if (groups == 0) return;
  const int64_t width = vectors_of_four(p) ? 4 : 1, chunks = (p.channels / width + kThreads - 1) / kThreads;
  char kernel[32];
  std::snprintf(kernel, sizeof kernel, "region_top_means_%s_%d", name_of(p.dtype), static_cast<int>(width));
  stream.launch(kernel, grid_of(2 * p.batch * regions * chunks), {kThreads}, 0, p);

  // Blocks take groups in turn, so that workspace grows with the device and not with the batch.
  constexpr int64_t kBlocksPerMultiprocessor = 4;
  const int64_t blocks = std::min<int64_t>(groups, kBlocksPerMultiprocessor * stream.device().multiprocessors);
  const Scratch chosen = stream.scratch(static_cast<size_t>(blocks * p.top) * sizeof(uint64_t));
  const Scratch affinities = stream.scratch(static_cast<size_t>(blocks * kRegionTopRows * regions) * sizeof(float));
  stream.launch("region_top", grid_of(blocks), {kThreads}, 0, RegionRankParams{p, affinities.data<float>(), chosen.data<uint64_t>()});
}

}  // namespace fovea::cuda
