// Which compiled code a device gets; the table of it is kernels.cc.
#include "cuda/kernels.h"

namespace fovea::cuda {

const EmbeddedCubin* cubin_for(const EmbeddedFile& file, int capability) {
  const EmbeddedCubin* best = nullptr;
  for (const EmbeddedCubin* cubin = file.cubins; cubin->code.gzip; cubin++) {
    const bool runs = cubin->this_one_only ? cubin->capability == capability
                                           : cubin->capability / 10 == capability / 10 && cubin->capability <= capability;
    if (runs && (!best || cubin->capability >= best->capability)) best = cubin;
  }
  return best;
}

}  // namespace fovea::cuda
