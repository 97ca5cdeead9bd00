// Backward of attention on the CPU: dq, dk, dv, dbias and the gradients of score tables from q, k, v, out, lse and dout.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/attention_params.h"
#include "core/isa.h"
#include "core/program_plan.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

// The plans of params.score and grads.derivative; null where there is no program.
struct Programs {
  const ProgramPlan* score = nullptr;
  const ProgramPlan* derivative = nullptr;
};

// Bytes of workspace a call needs with that many threads. The results do not depend on it.
int64_t attention_backward_workspace(const AttentionParams& params, const AttentionGrads& grads, int threads);

// Writes dq, dk and dv; adds to dbias and dtables, which the caller has zeroed. With q_rows only the listed rows of dq are written, each of
// which may be listed once. With kv_rows it adds to dk and dv, also zeroed by the caller, in ascending logical order: a row may be listed
// more than once. `threads` is the number the workspace was sized for. Returns early once *cancel becomes true (the pool throws
// ERR_ABORTED).
template <Isa>
void attention_backward(const AttentionParams& params, const AttentionGrads& grads, const Programs& programs, void* workspace, int threads,
                        ThreadPool& pool, const std::atomic<bool>* cancel);

}  // namespace fovea::cpu
