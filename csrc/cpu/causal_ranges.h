// Which keys of a rising list each query of a rising list may see under causality: a prefix.
#pragma once

#include "core/causal_ranges_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::CausalRangesParams;

template <Isa>
void causal_ranges(const CausalRangesParams&, ThreadPool&);

}  // namespace fovea::cpu
