// The tokens most similar to each centroid: routing of k-means attention.
#pragma once

#include "core/cluster_top_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

constexpr int64_t kClusterBlock = 768;                 // tokens compared with all clusters at once; a multiple of every register tile
constexpr int64_t kClusterPitch = kClusterBlock + 16;  // and what is kept of them for one cluster: vectors are stored whole

struct ClusterTopParams : fovea::ClusterTopParams {
  // Workspaces.
  float* similarities;  // [batch * heads, blocks, clusters, kClusterPitch], blocks = length over kClusterBlock, rounded up
  int32_t* places;      // the same
  int32_t* counts;      // [batch * heads, blocks, clusters]
  uint32_t* bounds;     // [batch * heads, clusters]: keys of similarities
};

template <Isa>
void cluster_top(const ClusterTopParams&, ThreadPool&);

}  // namespace fovea::cpu
