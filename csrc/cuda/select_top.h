// The k largest elements of rows on the device.
#pragma once

#include "core/select_top_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void select_top(const SelectTopParams&, Stream&);

}  // namespace fovea::cuda
