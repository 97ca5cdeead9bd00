// The k largest elements of each row as a set: their indices in rising order.
#pragma once

#include "core/isa.h"
#include "core/select_top_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::SelectTopParams;

template <Isa>
void select_top(const SelectTopParams&, ThreadPool&);

}  // namespace fovea::cpu
