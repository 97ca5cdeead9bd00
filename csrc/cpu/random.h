// Random tensors and dropout over the Philox streams of core/philox.h.
#pragma once

#include "core/isa.h"
#include "core/random_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::Distribution;
using fovea::DropoutParams;
using fovea::RandomParams;

template <Isa>
void random(const RandomParams&, ThreadPool&);
template <Isa>
void dropout(const DropoutParams&, ThreadPool&);

}  // namespace fovea::cpu
