// Moving tensors between devices and to the host.
#pragma once

#include "core/tensor.h"

namespace fovea {

// Queues a read of a tensor on a CUDA device: done(error) is called on some thread once `target` holds its elements in row-major order, or
// with the error of what failed to compute them. `target` stays valid until then.
void read_device(const Tensor& t, void* target, WhenDone done);

// `t` itself when it is there, else a queued copy.
Tensor to_device(const Tensor& t, Device device);

// As to_device for a dense CPU tensor whose elements are there and that nobody else will write.
Tensor upload(const Tensor& t, Device device);

}  // namespace fovea
