// Sorting rows, and the k first of each.
#pragma once

#include "core/isa.h"
#include "core/sort_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::SortParams;

template <Isa>
void sort(const SortParams&, ThreadPool&);

}  // namespace fovea::cpu
