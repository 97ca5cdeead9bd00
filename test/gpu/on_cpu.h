// The kernels of the CPU as what the device's are compared with: they have a double-precision reference in the library's own tests.
#pragma once

#include "core/isa.h"
#include "core/thread_pool.h"
#include "cuda/index_status.h"
#include "twin.h"

namespace fovea::gpu {

inline constexpr DType kFloats[] = {DType::F32, DType::BF16, DType::F16};
inline constexpr DType kAllFloats[] = {DType::F32, DType::BF16, DType::F16, DType::F64};

inline ThreadPool& pool() { return ThreadPool::instance(); }
inline std::string named(const char* op, DType dtype) { return std::string(op) + " " + name_of(dtype); }
inline DType arithmetic(DType dtype) { return dtype == DType::BF16 || dtype == DType::F16 ? DType::F32 : dtype; }

// The kernel of the CPU at its baseline level.
#define FOVEA_ON_CPU(kernel) [](const auto& p) { cpu::kernel<Isa::Baseline>(p, pool()); }
// A kernel that notes bad indices; these checks have none.
#define FOVEA_INDEXED(kernel)               \
  [](const auto& p, cuda::Stream& stream) { \
    const cuda::IndexStatus status(stream); \
    cuda::kernel(p, status.bad(), stream);  \
  }

}  // namespace fovea::gpu
