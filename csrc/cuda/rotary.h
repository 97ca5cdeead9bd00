// Rotary position embedding on the device. bad: receives the first bad b * length + l; starts as -1.
#pragma once

#include "core/rotary_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void rotary(const RotaryParams&, int64_t* bad, Stream&);
void rotary_table(const RotaryTableParams&, Stream&);

}  // namespace fovea::cuda
