// assignment: a column of its own for every row, at the least total cost. The CPU's alone.
#include "cpu/assignment.h"

#include "core/op.h"
#include "core/stream.h"
#include "ops/copy.h"

namespace fovea {
namespace {

constexpr const char* kOp = "assignment";

// costs [..., rows, columns] -> i32 [..., rows]
Tensor assignment(const Tensor& costs) {
  const int rank = costs.rank();
  check(rank >= 2 && costs.shape[rank - 2] <= costs.shape[rank - 1], "ERR_SHAPE", kOp, ": costs have shape ", text_of(costs.shape),
        ", expected [..., rows, columns] with at least as many columns as rows");
  check(is_floating(costs.dtype), "ERR_DTYPE", kOp, ": costs are ", name_of(costs.dtype), ", expected a floating dtype");
  check(costs.shape[rank - 1] <= INT32_MAX, "ERR_SHAPE", kOp, ": ", costs.shape[rank - 1], " columns are too many; at most 2^31 - 1");
  const Tensor wide = costs.dtype == DType::F64 ? contiguous(costs) : copy_as(costs, DType::F64);
  Dims dims = costs.shape;
  dims.rank = rank - 1;
  Tensor chosen = Tensor::empty(dims, DType::I32, costs.device());
  cpu::AssignmentParams p{};
  p.rows = costs.shape[rank - 2], p.columns = costs.shape[rank - 1];
  p.batch = p.rows > 0 ? chosen.count() / p.rows : 0;
  p.costs = static_cast<const double*>(wide.data());
  p.chosen = chosen.data<int32_t>();
  if (chosen.count() > 0)
    Stream::cpu().launch(kOp, {wide.storage.get()}, {chosen.storage.get()}, [p](const TaskContext& ctx) {
      const bool finite = dispatch_isa([&](auto isa) { return cpu::assignment<isa()>(p, ctx.pool); });
      check(finite, "ERR_ARGUMENT", kOp, ": a cost is not finite");
    });
  return chosen;
}

const RegisterOp<&assignment> registration{"assignment"};

}  // namespace
}  // namespace fovea
