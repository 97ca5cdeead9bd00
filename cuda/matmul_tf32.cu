// Matrix products of f32 whose elements are rounded to TF32, with f32 sums.
#define ELEMENT tf32
#include "matmul_entries.cuh"
