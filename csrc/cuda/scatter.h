// Elements by index on the device. bad: receives the first bad position; starts as -1.
#pragma once

#include "core/scatter_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void gather(const GatherParams&, int64_t* bad, Stream&);
void scatter(const ScatterParams&, int64_t* bad, Stream&);
void scatter_add(const ScatterAddParams&, int64_t* bad, Stream&);
void divide_counts(const DivideCountsParams&, Stream&);

}  // namespace fovea::cuda
