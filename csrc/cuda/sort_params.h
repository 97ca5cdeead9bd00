// Sorting as its kernels take it: entries, a key and where it came from, all different, so that any sort of them is stable.
#pragma once

#include "core/rows_params.h"
#include "core/sort_params.h"

namespace fovea::cuda {

constexpr int kSortChunk = 1024;

// A key of 64 bits and an index; keys of 32 bits are one word, key << 32 | index.
struct WideEntry {
  uint64_t key, index;
};

// Rows of `n` entries, sorted in chunks of `chunk` (a power of two, 64 to kSortChunk).
struct SortChunks {
  SortParams params;
  void* entries;
  int chunk;
};

// Merges neighbouring sorted runs of `run` entries of every row.
struct MergeRuns {
  const void* from;
  void* to;
  int64_t rows, n, run;
};

struct SortFinish {
  SortParams params;
  const void* entries;
};

struct AddRowsOrder {
  Indices ids;
  int64_t count, size;
  uint64_t* entries;
  int64_t* bad;
  int chunk;
};

struct AddRowsSum {
  AddRowsParams params;
  const uint64_t* entries;
};

}  // namespace fovea::cuda
