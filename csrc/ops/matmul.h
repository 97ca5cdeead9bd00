// The checks and the launch that matmul and linear share.
#pragma once

#include <optional>

#include "core/stream.h"
#include "core/tensor.h"
#include "cpu/matmul.h"

namespace fovea {

struct Epilogue {
  std::optional<Tensor> bias;  // [n]
  cpu::Activation activation = cpu::Activation::None;
  std::optional<Tensor> pre;  // shape and dtype of the output
};

MatmulPrecision precision_of(const char* op, int64_t code);

// Queues out = activation(a b + bias); shapes [..., m, k] and [..., k, n] with equal or broadcast leading axes, checked here.
Tensor launch_matmul(const char* op, const Tensor& a, const Tensor& b, DType out_dtype, MatmulPrecision precision,
                     const Epilogue& epilogue = {});

}  // namespace fovea
