// The order of spans on the device.
#pragma once

#include "core/span_order_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

// `bad` receives the first pair whose span lies outside the keys.
void span_order(const SpanOrderParams&, int64_t* bad, Stream&);

}  // namespace fovea::cuda
