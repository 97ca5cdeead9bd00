// The tokens most similar to each centroid, on the device.
#pragma once

#include "core/cluster_top_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void cluster_top(const ClusterTopParams&, Stream&);

}  // namespace fovea::cuda
