// Rows by index: gathering them (embedding, indexSelect) and adding them up by destination (their gradients).
#pragma once

#include "core/isa.h"
#include "core/rows_params.h"
#include "core/thread_pool.h"
#include "cpu/indices.h"

namespace fovea::cpu {

using fovea::AddRowsParams;
using fovea::GatherRowsParams;

// Returns the first position of ids that is out of range (its row of out is left as it was), or -1.
template <Isa>
int64_t gather_rows(const GatherRowsParams&, ThreadPool&);
template <Isa>
int64_t add_rows(const AddRowsParams&, ThreadPool&);

}  // namespace fovea::cpu
