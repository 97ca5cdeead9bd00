// mixSpans(out [pairs, dim], lse f32 [pairs], pairs i32 [pairs], gate f32 [rows, spans], near [rows, dim] or null, near_lse f32 [rows] or
// null) -> [rows, dim]: see cpu/mix_spans.h. `pairs` is a permutation that spanOrder made.
#include "cpu/mix_spans.h"

#include <cstring>

#include "core/error.h"
#include "core/op.h"
#include "core/stream.h"
#include "cuda/index_status.h"
#include "cuda/mix_spans.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/dtypes.h"

namespace fovea {
namespace {

constexpr const char* kOp = "mixSpans";

void check_pair(int64_t pair, int64_t at, int64_t count) {
  check(pair >= 0 && pair < count, "ERR_INDEX", kOp, ": pair ", pair, " at ", at, " of ", count);
}

void run_cpu(const MixSpansParams& p, ThreadPool& pool) {
  const int64_t count = p.rows * p.spans;
  for (int64_t i = 0; i < count; i++) check_pair(p.pairs[i], i, count);
  std::memset(p.places, 0, static_cast<size_t>(count) * 4);  // of a list that is no permutation, some would stay unset
  dispatch_isa([&](auto isa) { cpu::mix_spans<isa()>(p, pool); });
}

void run_cuda(const MixSpansParams& p, cuda::Stream& stream) {
  cuda::IndexStatus status(stream);
  cuda::mix_spans(p, status.bad(), stream);
  const int64_t bad = status.position();
  if (bad >= 0) check_pair(status.index_at({p.pairs, DType::I32}, bad), bad, p.rows * p.spans);
}

Tensor mix_spans(const Tensor& out_in, const Tensor& lse_in, const Tensor& pairs_in, const Tensor& gate_in,
                 const std::optional<Tensor>& near_in, const std::optional<Tensor>& near_lse_in) {
  check_float(kOp, out_in);
  check(gate_in.rank() == 2 && out_in.rank() == 2 && lse_in.rank() == 1 && pairs_in.rank() == 1, "ERR_SHAPE", kOp, ": out ",
        text_of(out_in.shape), ", lse ", text_of(lse_in.shape), ", pairs ", text_of(pairs_in.shape), ", gate ", text_of(gate_in.shape),
        "; expected [pairs, dim], [pairs], [pairs], [rows, spans]");
  MixSpansParams p{};
  p.dtype = out_in.dtype, p.rows = gate_in.shape[0], p.spans = gate_in.shape[1], p.dim = out_in.shape[1];
  const int64_t count = p.rows * p.spans;
  check(out_in.shape[0] == count && lse_in.shape[0] == count && pairs_in.shape[0] == count && count <= INT32_MAX, "ERR_SHAPE", kOp,
        ": out ", text_of(out_in.shape), ", lse ", text_of(lse_in.shape), ", pairs ", text_of(pairs_in.shape), " for a gate ",
        text_of(gate_in.shape));
  check(lse_in.dtype == DType::F32 && gate_in.dtype == DType::F32 && pairs_in.dtype == DType::I32, "ERR_DTYPE", kOp,
        ": lse and gate are f32, pairs i32; got ", name_of(lse_in.dtype), ", ", name_of(gate_in.dtype), ", ", name_of(pairs_in.dtype));
  check(near_in.has_value() == near_lse_in.has_value(), "ERR_ARGUMENT", kOp, ": near and its lse come together");
  Tensor out = contiguous(out_in), lse = contiguous(lse_in), pairs = contiguous(pairs_in), gate = contiguous(gate_in), near, near_lse;
  const Tensor nothing;
  const Device device =
      common_device(kOp, {&out, &lse, &pairs, &gate, near_in ? &*near_in : &nothing, near_lse_in ? &*near_lse_in : &nothing});
  std::vector<Storage*> reads = {out.storage.get(), lse.storage.get(), pairs.storage.get(), gate.storage.get()};
  if (near_in) {
    check(near_in->shape == Dims({p.rows, p.dim}) && near_lse_in->shape == Dims({p.rows}) && near_in->dtype == out.dtype &&
              near_lse_in->dtype == DType::F32,
          "ERR_SHAPE", kOp, ": near ", text_of(near_in->shape), " and its lse ", text_of(near_lse_in->shape), "; expected [", p.rows, ", ",
          p.dim, "] and [", p.rows, "], as out and f32");
    near = contiguous(*near_in), near_lse = contiguous(*near_lse_in);
    p.near = near.data(), p.near_lse = near_lse.data<float>();
    reads.push_back(near.storage.get()), reads.push_back(near_lse.storage.get());
  }
  Tensor places = Tensor::empty({count}, DType::I32, device), result = Tensor::empty({p.rows, p.dim}, out.dtype, device);
  p.out = out.data(), p.lse = lse.data<float>(), p.pairs = pairs.data<int32_t>(), p.gate = gate.data<float>();
  p.places = places.data<int32_t>(), p.result = result.data();
  Storage* writes[] = {result.storage.get(), places.storage.get()};
  if (result.count() > 0)
    launch_spans(
        kOp, device, reads.data(), reads.size(), writes, 2, false, [p](const TaskContext& ctx) { run_cpu(p, ctx.pool); },
        [p](cuda::Stream& stream) { run_cuda(p, stream); });
  return result;
}

const RegisterOp<&mix_spans> registration{"mixSpans"};

}  // namespace
}  // namespace fovea
