// What the kernel that compares tokens with centroids gets, by value.
#pragma once

#include "core/cluster_top_params.h"

namespace fovea::cuda {

// Of the lists first_list, .. (a list is a head of a batch entry) the clusters from first_cluster on: similarities [lists, clusters,
// length].
struct ClusterSimilarityParams {
  ClusterTopParams call;
  float* similarities;
  int64_t first_list, lists, first_cluster, clusters;
  bool wide;  // rows of x may be read 8 elements at a time
};

}  // namespace fovea::cuda
