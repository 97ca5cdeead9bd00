// Spans of each query joined with its sliding window: the last step of superlinear attention.
#pragma once

#include "core/isa.h"
#include "core/mix_spans_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::MixSpansParams;

template <Isa>
void mix_spans(const MixSpansParams&, ThreadPool&);

}  // namespace fovea::cpu
