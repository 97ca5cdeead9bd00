// Row lists of mixtures of heads on the device.
#pragma once

#include "core/head_rows_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void head_rows(const HeadRowsParams&, Stream&);

}  // namespace fovea::cuda
