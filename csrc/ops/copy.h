// Copies that other ops are built from.
#pragma once

#include "core/stream.h"
#include "core/tensor.h"
#include "cpu/convert.h"

namespace fovea {

// Queues a contiguous copy, converted to `dtype`.
Tensor copy_as(const Tensor& t, DType dtype);
// `t` itself when it is contiguous, else a queued copy.
Tensor contiguous(const Tensor& t);

// For tasks made of several copies: from and to have one shape; `to` may be a view of a larger output.
cpu::CopyParams copy_params(const Tensor& from, const Tensor& to);
void run_copy(const TaskContext& ctx, const cpu::CopyParams& p);

}  // namespace fovea
