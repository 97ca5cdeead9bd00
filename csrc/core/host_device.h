// Functions that host and device code share.
#pragma once

#if defined(__CUDACC__)
#define FOVEA_DEVICE __host__ __device__ __forceinline__
#else
#define FOVEA_DEVICE inline
#endif
