// Reductions of a strided tensor over any of its axes into a contiguous output.
//
// The result for one output element depends only on the values reduced and their logical order: not on strides, on other outputs, or on
// the number of threads (docs/numerics.md tells the order).
#pragma once

#include "core/isa.h"
#include "core/reduce_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::kReduceOps;
using fovea::ReduceOp;
using fovea::ReduceParams;

template <Isa>
void reduce(const ReduceParams&, ThreadPool&);

}  // namespace fovea::cpu
