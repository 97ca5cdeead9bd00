// Running sums along one axis of a contiguous tensor seen as [outer, length, inner].
#pragma once

#include "core/isa.h"
#include "core/scan_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::ScanParams;

template <Isa>
void cumsum(const ScanParams&, ThreadPool&);

}  // namespace fovea::cpu
