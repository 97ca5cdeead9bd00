// Score programs and their derivatives as PTX, spliced into the attention kernels (cuda/attention_scores.cuh has the markers).
//
//   //@score_head  batch, head                     once per tile: what depends on batch and head alone
//   //@score       s, batch, head, query, key      s becomes the program's value
//   //@derivative  d, s, batch, head, query, key   d, the gradient of the program's value, becomes that of s
//   //@scatter  d, at, s, batch, head, query, key  d becomes the gradient of an element of a table, `at` the element
//
// One instruction of the program becomes one of PTX, or a few (score_math.h), in SSA form on registers of its own scope, without branches;
// ptxas does the rest. A kernel has up to 64 markers of a kind. Each gets a copy of a short program; a long one stands in the kernel once,
// at the first marker, and the others jump there and back, so that what has to be compiled grows with the program alone. Captured numbers
// and the addresses and lengths of tables are read from the kernel's parameter, so new values need no new code: two programs of the same
// instructions are one splice. Sums of products may be fused and divisions may be off by two units in the last place, but not where a
// comparison, a rounding or an index hangs on them.
#pragma once

#include <memory>

#include "cuda/attention_forward_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

constexpr int32_t kCopiedScoreProgram = 128;  // instructions of the longest program that every marker gets a copy of

class ScoreSplice final : public Splice {
 public:
  // `kernel` finds its ScoreCaptures `captures` bytes into its parameter. `derivative` is for kernels with a marker derivative, or one
  // scatter, of which `scatter` is the number. Both programs must outlive the splice.
  ScoreSplice(const char* kernel, const MaskProgram& score, size_t captures, const MaskProgram* derivative = nullptr, int32_t scatter = -1);
  ~ScoreSplice() override;

  std::string key() const override;
  std::string expand(std::string_view module, std::string_view name, const std::vector<std::string_view>& operands) const override;

 private:
  class Expansion;

  const std::string kernel_;
  const MaskProgram& score_;
  const size_t captures_;
  const MaskProgram* const derivative_;
  const int32_t scatter_;
  mutable std::unique_ptr<Expansion> expansion_;  // of the text that is being spliced: markers come in its order
};

// What the spliced instructions read. The program's tables are the device's.
ScoreCaptures score_captures(const MaskProgram& program);

// Null when the program can be spliced, else why not.
const char* score_program_refusal(const MaskProgram& program);

}  // namespace fovea::cuda
