// The merges that follow sorting in chunks (cuda/sort.cuh).
#pragma once

#include "cuda/launch.h"
#include "cuda/sort_params.h"

namespace fovea::cuda {

// A power of two that holds a row, or the largest chunk.
int sort_chunk_of(int64_t n);
// Rows of n entries in `from` are sorted in runs of `chunk`; returns where they are sorted as a whole: `from` or `other`.
void* merge_runs(const char* kernel, void* from, void* other, int64_t rows, int64_t n, int64_t chunk, Stream&);

}  // namespace fovea::cuda
