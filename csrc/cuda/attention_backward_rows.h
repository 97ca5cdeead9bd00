// Gradients of keys and values that a list names: the engine makes one row for each position of the list, and rows of the tensors are
// summed from those in the end.
#pragma once

#include <memory>

#include "core/attention_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

// For a call with kv_rows; without one it does nothing.
class ListedGradients {
 public:
  // `wanted` gets memory of the positions in place of dk and dv. `rows`: of the key tensor.
  ListedGradients(const AttentionParams&, AttentionGrads& wanted, int64_t rows, Stream&);
  // Sums into dk and dv as they were wanted.
  void finish() const;

 private:
  struct Part {
    AttentionTensor to;
    int64_t dim;
    std::unique_ptr<Scratch> memory;
  };

  void take(Part&, AttentionTensor& wanted, int64_t dim);

  const AttentionParams& p_;
  const int64_t rows_;
  Stream& stream_;
  Part dk_, dv_;
};

}  // namespace fovea::cuda
