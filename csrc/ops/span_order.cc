// spanOrder(ranges [batch, heads, queries, spans, 2], heads_kv, len_kv) -> [pairs, rows, sorted ranges]: see cpu/span_order.h.
#include "cpu/span_order.h"

#include <algorithm>

#include "core/error.h"
#include "core/op.h"
#include "core/stream.h"
#include "ops/copy.h"

namespace fovea {
namespace {

constexpr const char* kOp = "spanOrder";

// Ranges come from the caller: what lies outside the keys is an error that names the pair.
void check_ranges(const cpu::SpanOrderParams& p) {
  const int64_t pairs = p.lists * p.group * p.queries * p.spans;
  for (int64_t i = 0; i < pairs; i++) {
    const int32_t begin = p.ranges[2 * i], end = p.ranges[2 * i + 1];
    check(begin >= end || (begin >= 0 && end <= p.len_kv), "ERR_INDEX", kOp, ": span ", i, " is [", begin, ", ", end, ") of ", p.len_kv,
          " keys");
  }
}

std::vector<Tensor> span_order(const Tensor& ranges_in, int64_t heads_kv, int64_t len_kv) {
  check(ranges_in.dtype == DType::I32 && ranges_in.rank() == 5 && ranges_in.shape[4] == 2, "ERR_SHAPE", kOp, ": ranges are ",
        name_of(ranges_in.dtype), " ", text_of(ranges_in.shape), ", expected i32 [batch, heads, queries, spans, 2]");
  const Dims& s = ranges_in.shape;
  check(heads_kv > 0 && s[1] % heads_kv == 0, "ERR_SHAPE", kOp, ": ", s[1], " query heads are not a multiple of ", heads_kv, " key heads");
  Tensor ranges = contiguous(ranges_in);
  const int64_t pairs = ranges.count() / 2;
  check(pairs <= INT32_MAX && len_kv <= INT32_MAX, "ERR_SHAPE", kOp, ": ", pairs, " spans in one call; at most 2^31 - 1");
  Tensor order = Tensor::empty({pairs}, DType::I32), rows = Tensor::empty({pairs}, DType::I32);
  Tensor sorted = Tensor::empty({s[0], heads_kv, pairs / std::max<int64_t>(1, s[0] * heads_kv), 2}, DType::I32);
  if (pairs == 0) return {order, rows, sorted};
  cpu::SpanOrderParams p{ranges.data<int32_t>(), s[0] * heads_kv,      s[1] / heads_kv,       s[2], s[3], len_kv,
                         order.data<int32_t>(),  rows.data<int32_t>(), sorted.data<int32_t>()};
  Stream::cpu().launch(kOp, {ranges.storage.get()}, {order.storage.get(), rows.storage.get(), sorted.storage.get()},
                       [p](const TaskContext& ctx) {
                         check_ranges(p);
                         dispatch_isa([&](auto isa) { cpu::span_order<isa()>(p, ctx.pool); });
                       });
  return {order, rows, sorted};
}

const RegisterOp<&span_order> registration{"spanOrder"};

}  // namespace
}  // namespace fovea
