// Elementwise kernels: out[i] = op(in0[i], in1[i], ...) over broadcast, strided inputs and a contiguous output.
#pragma once

#include "core/elementwise_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::BinaryOp;
using fovea::ElementwiseInput;
using fovea::ElementwiseParams;
using fovea::kBinaryOps;
using fovea::kUnaryOps;
using fovea::UnaryOp;

template <Isa>
void binary(const ElementwiseParams&, ThreadPool&);
// op is a UnaryOp.
template <Isa>
void unary(const ElementwiseParams&, ThreadPool&);
// in0 = gradient of the result, in1 = the argument of the UnaryOp, or its result (from_result in cpu/unary_math.h).
template <Isa>
void unary_backward(const ElementwiseParams&, ThreadPool&);
// in0 = condition (bool), in1 and in2 = values.
template <Isa>
void where(const ElementwiseParams&, ThreadPool&);

}  // namespace fovea::cpu
