// Strided copy with conversion between any two dtypes, as csrc/cpu/convert.h states it.
#pragma once

#include "core/copy_params.h"
#include "cuda/convert_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void convert(const CopyParams& copy, Stream& stream);

}  // namespace fovea::cuda
