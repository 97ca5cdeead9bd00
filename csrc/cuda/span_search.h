// Span search on the device.
#pragma once

#include "core/span_search_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void span_search(const SpanSearchParams&, Stream&);

}  // namespace fovea::cuda
