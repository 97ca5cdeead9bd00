// Running sums on the device.
#pragma once

#include "core/scan_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void cumsum(const ScanParams&, Stream&);

}  // namespace fovea::cuda
