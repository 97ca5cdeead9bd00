// spanOrder(ranges [batch, heads, queries, spans, 2], heads_kv, len_kv) -> [pairs, rows, sorted ranges]: see cpu/span_order.h.
#include "cpu/span_order.h"

#include <algorithm>

#include "core/error.h"
#include "core/op.h"
#include "core/stream.h"
#include "cuda/index_status.h"
#include "cuda/span_order.h"
#include "ops/copy.h"
#include "ops/device.h"

namespace fovea {
namespace {

constexpr const char* kOp = "spanOrder";

// Ranges come from the caller: what lies outside the keys is an error that names the pair.
void check_range(const SpanOrderParams& p, int64_t pair, int32_t begin, int32_t end) {
  check(begin >= end || (begin >= 0 && end <= p.len_kv), "ERR_INDEX", kOp, ": span ", pair, " is [", begin, ", ", end, ") of ", p.len_kv,
        " keys");
}

void run_cpu(const SpanOrderParams& p, ThreadPool& pool) {
  const int64_t pairs = p.lists * p.group * p.queries * p.spans;
  for (int64_t i = 0; i < pairs; i++) check_range(p, i, p.ranges[2 * i], p.ranges[2 * i + 1]);
  dispatch_isa([&](auto isa) { cpu::span_order<isa()>(p, pool); });
}

void run_cuda(const SpanOrderParams& p, cuda::Stream& stream) {
  cuda::IndexStatus status(stream);
  cuda::span_order(p, status.bad(), stream);
  const int64_t bad = status.position();
  if (bad < 0) return;
  const Indices ends{p.ranges, DType::I32};
  check_range(p, bad, static_cast<int32_t>(status.index_at(ends, 2 * bad)), static_cast<int32_t>(status.index_at(ends, 2 * bad + 1)));
}

std::vector<Tensor> span_order(const Tensor& ranges_in, int64_t heads_kv, int64_t len_kv) {
  check(ranges_in.dtype == DType::I32 && ranges_in.rank() == 5 && ranges_in.shape[4] == 2, "ERR_SHAPE", kOp, ": ranges are ",
        name_of(ranges_in.dtype), " ", text_of(ranges_in.shape), ", expected i32 [batch, heads, queries, spans, 2]");
  const Dims& s = ranges_in.shape;
  check(heads_kv > 0 && s[1] % heads_kv == 0, "ERR_SHAPE", kOp, ": ", s[1], " query heads are not a multiple of ", heads_kv, " key heads");
  Tensor ranges = contiguous(ranges_in);
  const int64_t pairs = ranges.count() / 2;
  check(pairs <= INT32_MAX && len_kv <= INT32_MAX, "ERR_SHAPE", kOp, ": ", pairs, " spans in one call; at most 2^31 - 1");
  const Device device = ranges.device();
  Tensor order = Tensor::empty({pairs}, DType::I32, device), rows = Tensor::empty({pairs}, DType::I32, device);
  Tensor sorted = Tensor::empty({s[0], heads_kv, pairs / std::max<int64_t>(1, s[0] * heads_kv), 2}, DType::I32, device);
  if (pairs == 0) return {order, rows, sorted};
  SpanOrderParams p{};
  p.ranges = ranges.data<int32_t>();
  p.lists = s[0] * heads_kv, p.group = s[1] / heads_kv, p.queries = s[2], p.spans = s[3], p.len_kv = len_kv;
  p.pairs = order.data<int32_t>(), p.rows = rows.data<int32_t>(), p.sorted = sorted.data<int32_t>();
  launch(
      kOp, device, {ranges.storage.get()}, {order.storage.get(), rows.storage.get(), sorted.storage.get()},
      [p](const TaskContext& ctx) { run_cpu(p, ctx.pool); }, [p](cuda::Stream& stream) { run_cuda(p, stream); });
  return {order, rows, sorted};
}

const RegisterOp<&span_order> registration{"spanOrder"};

}  // namespace
}  // namespace fovea
