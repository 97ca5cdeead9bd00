// Gradients that have fewer owners than a device has room for: several blocks share an owner, each with a run of what it visits, and leave
// f32 sums of their own, which are added in order.
#pragma once

#include <memory>

#include "cuda/attention_backward.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void add_parts(const AttentionBackwardPartsParams&, Stream&);

// The gradients of keys and values of a call with few tiles of keys and many queries; for other calls it does nothing. How many blocks
// share a tile follows from the shapes of one batch entry alone, so a gradient has the same bits in any batch.
class KeyParts {
 public:
  // `params` gets memory of the parts in place of dk and dv.
  KeyParts(AttentionBackwardParams& params, const BackwardTiles&, Stream&);
  // Sums into dk and dv as they were wanted.
  void finish() const;

 private:
  AttentionTensor take(const AttentionTensor& wanted, int64_t dim, std::unique_ptr<Scratch>& memory) const;
  void add(const Scratch*, const AttentionTensor& to, int64_t dim) const;

  const AttentionParams& p_;
  Stream& stream_;
  int64_t parts_ = 1;
  DType dtype_;
  AttentionTensor dk_, dv_;
  std::unique_ptr<Scratch> dk_memory_, dv_memory_;
};

}  // namespace fovea::cuda
