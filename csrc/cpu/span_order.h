// The order in which (query, span) pairs are attended: by where their spans begin, so that the pairs of a tile look at the same keys.
#pragma once

#include "core/isa.h"
#include "core/span_order_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::SpanOrderParams;

template <Isa>
void span_order(const SpanOrderParams&, ThreadPool&);

}  // namespace fovea::cpu
