// causalRanges(q_rows [..., queries], kv_rows [..., keys]) -> i32 [..., queries, 2]: the keys each query may see, of lists in rising order.
#include "cpu/causal_ranges.h"

#include "core/error.h"
#include "core/op.h"
#include "core/stream.h"
#include "cuda/causal_ranges.h"
#include "ops/copy.h"
#include "ops/device.h"

namespace fovea {
namespace {

constexpr const char* kOp = "causalRanges";

Tensor causal_ranges(const Tensor& q_in, const Tensor& kv_in) {
  check(q_in.dtype == DType::I32 && kv_in.dtype == DType::I32, "ERR_DTYPE", kOp, ": row lists are ", name_of(q_in.dtype), " and ",
        name_of(kv_in.dtype), ", expected i32");
  const int rank = q_in.rank();
  bool fits = rank >= 1 && kv_in.rank() == rank;
  for (int i = 0; fits && i + 1 < rank; i++) fits = q_in.shape[i] == kv_in.shape[i];
  check(fits, "ERR_SHAPE", kOp, ": row lists ", text_of(q_in.shape), " and ", text_of(kv_in.shape), " differ before the last axis");
  Tensor q = contiguous(q_in), kv = contiguous(kv_in);
  Dims shape = q.shape;
  shape.push(2);
  const Device device = common_device(kOp, {&q, &kv});
  Tensor out = Tensor::empty(shape, DType::I32, device);
  if (out.count() == 0) return out;
  const int64_t queries = q.shape[rank - 1];
  CausalRangesParams p{q.data<int32_t>(), kv.data<int32_t>(), q.count() / queries, queries, kv.shape[rank - 1], out.data<int32_t>()};
  launch(
      kOp, device, {q.storage.get(), kv.storage.get()}, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::causal_ranges<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::causal_ranges(p, stream); });
  return out;
}

const RegisterOp<&causal_ranges> registration{"causalRanges"};

}  // namespace
}  // namespace fovea
