// Rotary position embedding of query or key rows.
#pragma once

#include "core/isa.h"
#include "core/rotary_params.h"
#include "core/thread_pool.h"
#include "cpu/indices.h"

namespace fovea::cpu {

using fovea::RotaryParams;

// Returns the first index (b * length + l) whose position is outside the tables, or -1.
template <Isa>
int64_t rotary(const RotaryParams&, ThreadPool&);

}  // namespace fovea::cpu
