// Rows averaged by destination: where the results of clusters become results of tokens.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/mean_rows_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::MeanRowsParams;

// The first bad position in ids, or -1.
template <Isa>
int64_t mean_rows(const MeanRowsParams&, ThreadPool&);

}  // namespace fovea::cpu
