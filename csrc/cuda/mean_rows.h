// Averages of rows on the device.
#pragma once

#include "core/mean_rows_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

// `bad` receives the first position of ids that is out of range.
void mean_rows(const MeanRowsParams&, int64_t* bad, Stream&);

}  // namespace fovea::cuda
