// Triangles of matrices on the device.
#pragma once

#include "core/triangle_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void triangle(const TriangleParams&, Stream&);

}  // namespace fovea::cuda
