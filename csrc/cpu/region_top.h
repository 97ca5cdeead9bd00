// Which regions of an image are nearest to each: routing of bi-level routing attention.
#pragma once

#include "core/isa.h"
#include "core/region_top_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::RegionTopParams;

template <Isa>
void region_top(const RegionTopParams&, ThreadPool&);

}  // namespace fovea::cpu
