// Sorting rows on the device.
#pragma once

#include "core/sort_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void sort(const SortParams&, Stream&);

}  // namespace fovea::cuda
