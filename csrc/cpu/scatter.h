// Elements by index along one axis: gather, scatter and scatter-add. Tensors are contiguous [outer, axis, inner]; the index is
// [outer, count, index_inner] with index_inner = inner, or 1 where one index serves a whole row.
#pragma once

#include "core/isa.h"
#include "core/scatter_params.h"
#include "core/thread_pool.h"
#include "cpu/indices.h"

namespace fovea::cpu {

using fovea::DivideCountsParams;
using fovea::GatherParams;
using fovea::IndexedShape;
using fovea::ScatterAddParams;
using fovea::ScatterParams;

// Returns the first position of the index that is out of range (skipped), or -1.
template <Isa>
int64_t gather(const GatherParams&, ThreadPool&);
template <Isa>
int64_t scatter(const ScatterParams&, ThreadPool&);
template <Isa>
int64_t scatter_add(const ScatterAddParams&, ThreadPool&);
template <Isa>
void divide_counts(const DivideCountsParams&, ThreadPool&);

}  // namespace fovea::cpu
