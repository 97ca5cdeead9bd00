// Gathering and adding rows on the device. bad: receives the first bad position; starts as -1.
#pragma once

#include "core/rows_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void gather_rows(const GatherRowsParams&, int64_t* bad, Stream&);
// The params' workspace is not used.
void add_rows(const AddRowsParams&, int64_t* bad, Stream&);

}  // namespace fovea::cuda
