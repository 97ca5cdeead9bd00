// Checks of dtypes that many ops share.
#pragma once

#include "core/tensor.h"

namespace fovea {

// The dtypes kernels compute on: f32, and bf16 and f16 through f32.
inline void check_float(const char* op, const Tensor& t) {
  check(t.dtype == DType::F32 || t.dtype == DType::BF16 || t.dtype == DType::F16, "ERR_DTYPE", op, ": dtype ", name_of(t.dtype),
        " is not supported; expected f32, bf16 or f16");
}

inline DType dtype_of(const char* op, int64_t code) {
  check(code >= 0 && code < kDTypeCount, "ERR_DTYPE", op, ": unknown dtype code ", code);
  return static_cast<DType>(code);
}

}  // namespace fovea
