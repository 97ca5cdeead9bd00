#include "cuda/select_top.h"

#include <algorithm>

#include "cuda/grid.h"

namespace fovea::cuda {

void select_top(const SelectTopParams& p, Stream& stream) {
  const int64_t warps = std::clamp<int64_t>((p.n + 127) / 128, 1, 16);
  stream.launch("select_top", grid_of(p.rows), {static_cast<unsigned>(32 * warps)}, 0, p);
}

}  // namespace fovea::cuda
