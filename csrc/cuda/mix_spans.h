// Spans joined with their window on the device.
#pragma once

#include "core/mix_spans_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

// `bad` receives the first entry of `pairs` that is out of range.
void mix_spans(const MixSpansParams&, int64_t* bad, Stream&);

}  // namespace fovea::cuda
