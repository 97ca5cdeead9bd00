// What the kernel that ranks regions gets, by value.
#pragma once

#include "core/region_top_params.h"

namespace fovea::cuda {

constexpr int kRegionTopRows = 4;  // regions a block ranks at once

struct RegionRankParams {
  RegionTopParams call;
  float* affinities;  // [blocks, kRegionTopRows, regions]
  uint64_t* chosen;   // [blocks, top]
};

}  // namespace fovea::cuda
