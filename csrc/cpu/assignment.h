// The assignment problem: every row a column of its own, at the least total cost.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

struct AssignmentParams {
  int64_t batch, rows, columns;  // rows <= columns
  const double* costs;           // [batch, rows, columns]
  int32_t* chosen;               // [batch, rows]
};

// False where a cost is not finite; nothing is chosen then.
template <Isa>
bool assignment(const AssignmentParams&, ThreadPool&);

}  // namespace fovea::cpu
