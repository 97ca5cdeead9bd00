// spanSearch(q, k, key_mask or null, distances, steps, span_tables, integers = [q_offset, window, spans, refinements]) -> [anchors, scores,
// ranges]: see cpu/span_search.h. steps is i32 [refinements, 3, table], span_tables i32 [2, table].
#include "cpu/span_search.h"

#include "core/error.h"
#include "core/op.h"
#include "core/stream.h"
#include "cuda/span_search.h"
#include "ops/attention_call.h"
#include "ops/copy.h"
#include "ops/device.h"

namespace fovea {
namespace {

constexpr const char* kOp = "spanSearch";

Tensor rows_last(const Tensor& t) { return t.shape[3] == 1 || t.strides[3] == 1 ? t : contiguous(t); }

// Where the first key in use of each batch entry is (len_kv where there is none).
void find_first(const uint8_t* mask, int64_t batch, int64_t keys, int64_t* first) {
  for (int64_t b = 0; b < batch; b++) {
    int64_t j = 0;
    while (j < keys && !mask[b * keys + j]) j++;
    first[b] = j;
  }
}

std::vector<Tensor> span_search(const Tensor& q_in, const Tensor& k_in, const std::optional<Tensor>& mask_in, const Tensor& distances,
                                const Tensor& steps, const Tensor& span_tables, const std::vector<int64_t>& n) {
  check(n.size() == 4, "ERR_ARGUMENT", kOp, ": got ", n.size(), " integers, expected 4");
  check(q_in.rank() == 4 && k_in.rank() == 4 && q_in.shape[0] == k_in.shape[0] && q_in.shape[3] == k_in.shape[3] && k_in.shape[1] > 0 &&
            q_in.shape[1] % k_in.shape[1] == 0,
        "ERR_SHAPE", kOp, ": q ", text_of(q_in.shape), " and k ", text_of(k_in.shape),
        " do not fit: [batch, heads, length, dim], query heads a multiple of key heads");
  check(q_in.shape[3] > 0, "ERR_SHAPE", kOp, ": q ", text_of(q_in.shape), " has no dims");
  check((q_in.dtype == DType::F32 || q_in.dtype == DType::BF16 || q_in.dtype == DType::F16) && k_in.dtype == q_in.dtype, "ERR_DTYPE", kOp,
        ": q and k are ", name_of(q_in.dtype), " and ", name_of(k_in.dtype), ", expected one of f32, bf16, f16");
  for (const Tensor* t : {&distances, &steps, &span_tables})
    check(t->dtype == DType::I32 && t->contiguous(), "ERR_DTYPE", kOp, ": tables are contiguous i32");
  const Tensor nothing;
  const Device device = common_device(kOp, {&q_in, &k_in, mask_in ? &*mask_in : &nothing, &distances, &steps, &span_tables});
  Tensor q = rows_last(q_in), k = rows_last(k_in), mask, first;
  SpanSearchParams p{};
  p.dtype = q.dtype;
  p.batch = q.shape[0], p.heads_q = q.shape[1], p.heads_kv = k.shape[1], p.len_q = q.shape[2], p.len_kv = k.shape[2], p.dim = q.shape[3];
  p.q = attention_tensor(q), p.k = attention_tensor(k);
  p.q_offset = n[0], p.window = n[1], p.spans = n[2], p.refinements = n[3];
  check(p.spans >= 1 && p.spans <= kMaxSpans, "ERR_ARGUMENT", kOp, ": numSpans is ", p.spans, ", expected 1 to ", kMaxSpans);
  p.table = span_tables.rank() == 2 ? span_tables.shape[1] : 0;
  check(p.table > p.q_offset + p.len_q && span_tables.shape[0] == 2 && steps.count() == 3 * p.refinements * p.table, "ERR_ARGUMENT", kOp,
        ": tables of ", p.table, " entries for positions up to ", p.q_offset + p.len_q - 1);
  p.distances = distances.data<int32_t>(), p.distance_count = distances.count();
  p.steps = steps.data<int32_t>();
  p.span_back = span_tables.data<int32_t>(), p.span_forward = p.span_back + p.table;
  std::vector<Storage*> reads = {q.storage.get(), k.storage.get(), distances.storage.get(), steps.storage.get(), span_tables.storage.get()};
  const Dims shape = {p.batch, p.heads_q, p.len_q, p.spans};
  Tensor anchors = Tensor::empty(shape, DType::I32, device), scores = Tensor::empty(shape, DType::F32, device);
  Tensor ranges = Tensor::empty({p.batch, p.heads_q, p.len_q, p.spans, 2}, DType::I32, device);
  std::vector<Storage*> writes = {anchors.storage.get(), scores.storage.get(), ranges.storage.get()};
  if (mask_in) {
    check(mask_in->dtype == DType::Bool && mask_in->rank() == 2 && mask_in->shape[0] == p.batch && mask_in->shape[1] == p.len_kv,
          "ERR_SHAPE", kOp, ": keyMask has shape ", text_of(mask_in->shape), " of ", name_of(mask_in->dtype), ", expected [", p.batch, ", ",
          p.len_kv, "] of bool");
    mask = contiguous(*mask_in);
    first = Tensor::empty({p.batch}, DType::I64, device);
    p.key_mask = mask.data<uint8_t>(), p.first = first.data<int64_t>();
    reads.push_back(mask.storage.get()), writes.push_back(first.storage.get());
  }
  p.anchors = anchors.data<int32_t>(), p.scores = scores.data<float>(), p.ranges = ranges.data<int32_t>();
  if (anchors.count() > 0)
    launch_spans(
        kOp, device, reads.data(), reads.size(), writes.data(), writes.size(), false,
        [p](const TaskContext& ctx) {
          if (p.key_mask) find_first(p.key_mask, p.batch, p.len_kv, p.first);
          dispatch_isa([&](auto isa) { cpu::span_search<isa()>(p, ctx.pool, ctx.cancel); });
        },
        [p](cuda::Stream& stream) { cuda::span_search(p, stream); });
  return {anchors, scores, ranges};
}

const RegisterOp<&span_search> registration{"spanSearch"};

}  // namespace
}  // namespace fovea
