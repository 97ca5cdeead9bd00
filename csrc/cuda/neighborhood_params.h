// What the neighborhood kernels get, by value.
#pragma once

#include "core/neighborhood_params.h"

namespace fovea::cuda {

// How the tokens of one side are cut into boxes: a power of two of them along each axis. Row r of a box has coordinate
// (r >> low) mod 2^shift along an axis.
struct NeighborhoodBoxes {
  int32_t shift[kNeighborhoodAxes];    // log2 of the rows along an axis
  int32_t low[kNeighborhoodAxes];      // log2 of the rows along all axes behind it
  uint32_t repeat[kNeighborhoodAxes];  // times this, a word with the bits of 2^(shift + low) rows has them again and again
};

// Rows of these operands are 16-byte aligned, dims a multiple of 16 bytes, elements neighbours: they may be fetched in whole pieces.
enum NeighborhoodWide : int32_t { kNaWideQuery = 1, kNaWideKey = 2, kNaWideValue = 4, kNaWideOut = 8, kNaWideGrad = 16 };

struct NeighborhoodKernelParams {
  NeighborhoodParams call;                  // addresses of the device
  NeighborhoodBoxes owned, visited, extra;  // boxes of a block's own side, of the other, of extra keys
  int32_t grid[kNeighborhoodAxes];          // owned boxes of the longest lattice
  int32_t wide, wide_extra;                 // NeighborhoodWide
};

struct NeighborhoodBackwardParams {
  NeighborhoodKernelParams forward;  // with the boxes of the kernel's own
  NeighborhoodGrads grads;
  float* delta;  // [batch, tokens, heads_q]: dout . out - dlse
  // The gradient of the bias: `parts` blocks a head share its boxes, and add up a table each, [heads_q, parts, table_size].
  float* tables;
  int32_t parts, table_size;
};

}  // namespace fovea::cuda
