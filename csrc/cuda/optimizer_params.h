// Optimizer steps as their kernels take them: as many tensors a launch as fit a kernel's argument.
#pragma once

#include "core/optimizer_params.h"

namespace fovea::cuda {

constexpr int kOptimizerItems = 56, kOptimizerThreads = 256;

// Block b works on tile b - first_tile[i] of the last item i that begins at or before b.
struct OptimizerGroup {
  OptimizerItem items[kOptimizerItems];
  int first_tile[kOptimizerItems];
  int count;
};

struct AdamWLaunch {
  OptimizerGroup group;
  AdamWParams step;  // its list is not used
};

struct SgdLaunch {
  OptimizerGroup group;
  SgdParams step;  // its list is not used
};

// Gradients are the `param`s of the group.
struct SumSquaresLaunch {
  OptimizerGroup group;
  double* partial;  // one a tile
};

struct ClipNormParams {
  const double* partial;
  int64_t tiles;
  float* norm;
  float* factor;
  double max_norm;
};

struct ScaleLaunch {
  OptimizerGroup group;
  const float* factor;  // nothing happens at 1 and above
};

}  // namespace fovea::cuda
