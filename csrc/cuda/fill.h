// Arithmetic sequences; constants are Stream::fill.
#pragma once

#include "core/dtype.h"
#include "cuda/fill_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

// `dtype` is F32, F64, I32 or I64.
void sequence(const SequenceParams& p, DType dtype, Stream& stream);

}  // namespace fovea::cuda
