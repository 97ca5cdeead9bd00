// What linear's backward needs beside matrix products: the derivative of its fused activation.
#pragma once

#include "core/isa.h"
#include "core/linear_params.h"
#include "core/thread_pool.h"
#include "cpu/matmul.h"

namespace fovea::cpu {

using fovea::ActivationGradParams;

template <Isa>
void activation_grad(const ActivationGradParams&, ThreadPool&);

}  // namespace fovea::cpu
