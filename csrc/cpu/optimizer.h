// Optimizer steps in place over many parameters at once, and the norm of many gradients.
#pragma once

#include "core/isa.h"
#include "core/optimizer_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::AdamWParams;
using fovea::GradList;
using fovea::kOptimizerTile;
using fovea::optimizer_tiles;
using fovea::OptimizerItem;
using fovea::SgdParams;

template <Isa>
void adamw(const AdamWParams&, ThreadPool&);
template <Isa>
void sgd(const SgdParams&, ThreadPool&);
// Sum of squares of all elements. `partial` has sum_squares_tiles(list) places.
template <Isa>
double sum_squares(const GradList&, double* partial, ThreadPool&);
// Multiplies all elements by `factor`.
template <Isa>
void scale_all(const GradList&, float factor, ThreadPool&);

}  // namespace fovea::cpu
