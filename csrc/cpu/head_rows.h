// Which tokens each head is taken by: row lists of mixtures of heads.
#pragma once

#include "core/head_rows_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::HeadRowsParams;

template <Isa>
void head_rows(const HeadRowsParams&, ThreadPool&);

}  // namespace fovea::cpu
