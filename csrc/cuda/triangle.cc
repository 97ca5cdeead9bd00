#include "cuda/triangle.h"

#include "cuda/grid.h"

namespace fovea::cuda {

void triangle(const TriangleParams& p, Stream& stream) {
  const int bytes = p.element_bytes;
  const char* kernel = bytes == 1 ? "triangle_1" : bytes == 2 ? "triangle_2" : bytes == 4 ? "triangle_4" : "triangle_8";
  stream.launch(kernel, threads_for(p.matrices * p.rows * p.columns), {kThreads}, 0, p);
}

}  // namespace fovea::cuda
