// What the machine can do: f32 fused multiply-adds and memory reads per second, the yardsticks of bench/.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

// One round of multiply-adds on independent accumulators; returns the floating-point operations done. *sink keeps the result alive.
template <Isa>
int64_t fma_round(float* sink);

// Sums `bytes` bytes at `data`; *sink keeps the result alive.
template <Isa>
void read_round(const float* data, int64_t bytes, float* sink);

}  // namespace fovea::cpu
