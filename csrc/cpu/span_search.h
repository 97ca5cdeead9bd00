// Span search of superlinear attention: each query scores few of the keys before it and keeps the best as anchors of spans.
#pragma once

#include <atomic>

#include "core/isa.h"
#include "core/span_search_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::SpanSearchParams;

template <Isa>
void span_search(const SpanSearchParams&, ThreadPool&, const std::atomic<bool>* cancel);

}  // namespace fovea::cpu
