// The nearest regions of each region of an image, on the device.
#pragma once

#include "core/region_top_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void region_top(const RegionTopParams&, Stream&);

}  // namespace fovea::cuda
