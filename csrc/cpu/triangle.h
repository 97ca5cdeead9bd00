// The lower or upper triangle of matrices.
#pragma once

#include "core/isa.h"
#include "core/thread_pool.h"
#include "core/triangle_params.h"

namespace fovea::cpu {

using fovea::TriangleParams;

template <Isa>
void triangle(const TriangleParams&, ThreadPool&);

}  // namespace fovea::cpu
