// Neighborhood attention on a CUDA device. See cuda/neighborhood_forward.cuh and cuda/neighborhood_forward_f32.cu for how.
#pragma once

#include "cuda/launch.h"
#include "cuda/neighborhood_params.h"

namespace fovea::cuda {

// Null when the kernels take the call, else why not.
const char* neighborhood_refusal(const NeighborhoodParams& p);

// Writes out, and lse when asked. The caller has asked the refusal.
void neighborhood(const NeighborhoodParams& p, Stream& stream);

// Smallest head-dim bucket of the kernels that holds both dims.
int neighborhood_bucket(const NeighborhoodParams& p);

// Boxes of 2^owned rows that a block owns and of 2^visited rows that it visits, those with the least work, and the grid of the call.
// `own_keys`: the owned rows are keys.
NeighborhoodKernelParams neighborhood_boxes(const NeighborhoodParams& p, bool own_keys, int owned, int visited);

// Blocks along the boxes and lattices of one head.
int64_t neighborhood_blocks(const NeighborhoodKernelParams& params);

// Queries of a forward block along each axis, for explain.
void neighborhood_tile_shape(const NeighborhoodParams& p, int64_t tile[kNeighborhoodAxes]);

// Whether rows of `t` may be read in whole 16-byte pieces.
bool neighborhood_rows_wide(const NeighborhoodTensor& t, int64_t dim, DType dtype);

}  // namespace fovea::cuda
