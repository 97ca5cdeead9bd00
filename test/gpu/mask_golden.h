// The program of a mask that came in a golden case.
#pragma once

#include "core/program_plan.h"
#include "goldens.h"

namespace fovea::gpu {

class MaskGolden {
 public:
  explicit MaskGolden(const Golden& g) : words_(g.array<int32_t>("program")), uniforms_(g.array<int32_t>("uniforms")) {
    static_assert(sizeof(MaskInstr) == 16);
    const int64_t count = g.integer("tables");
    for (int64_t i = 0; i < count; i++) {
      const std::string key = "table" + std::to_string(i);
      memory_.push_back(g.array<uint8_t>(key));
      const auto dtype = static_cast<int32_t>(g.integer(key + ".dtype"));
      tables_.push_back({memory_.back().data(), static_cast<int64_t>(memory_.back().size()) / (dtype == 2 ? 1 : 4), dtype});
    }
    MaskProgram p{};
    p.code = reinterpret_cast<const MaskInstr*>(words_.data() + 7), p.size = words_[1];
    p.batch_head_end = words_[2], p.query_end = words_[3], p.key_end = words_[4], p.result = words_[5];
    p.tables = tables_.data(), p.table_count = static_cast<int32_t>(tables_.size());
    p.uniforms = uniforms_.data(), p.uniform_count = static_cast<int32_t>(uniforms_.size());
    plan_ = std::make_unique<ProgramPlan>(p, ProgramPlan::Kind::Mask);
  }
  const ProgramPlan& plan() const { return *plan_; }

 private:
  std::vector<int32_t> words_, uniforms_;
  std::vector<std::vector<uint8_t>> memory_;
  std::vector<MaskTable> tables_;
  std::unique_ptr<ProgramPlan> plan_;
};

}  // namespace fovea::gpu
