// The products of neighborhood attention as ops of their own. Operands are f32 and contiguous; axes as in neighborhood_call.h.
//
//   neighborhoodDot(x, keys, axes, scale, unseen) -> weights [batch, ...space, heads, slots]
//   neighborhoodGather(weights, keys, axes, scale) -> [batch, ...space, heads, dim]
//   neighborhoodScatter(weights, x, axes, scale, headsKv) -> [batch, ...space, headsKv, dim], the transpose of gather
//   neighborhoodLoops(q, k, v, axes, scale) -> out, plain loops to measure against
#include "cpu/neighborhood_pair.h"

#include "core/error.h"
#include "core/stream.h"
#include "cuda/neighborhood_pair.h"
#include "ops/device.h"
#include "ops/neighborhood_call.h"

namespace fovea {
namespace {

void check_plain(const char* op, const char* what, const Tensor& t) {
  check(t.dtype == DType::F32 && t.contiguous(), "ERR_DTYPE", op, ": ", what, " is ", name_of(t.dtype), ", expected f32, contiguous");
}

NeighborhoodPairParams bind(const char* op, const Tensor& queries, int64_t heads_kv, const std::vector<int64_t>& axes) {
  NeighborhoodPairParams p{};
  check_plain(op, "the first operand", queries);
  bind_neighborhood_axes(op, p.space, queries.shape, axes);
  const int rank = queries.rank();
  p.space.batch = queries.shape[0], p.space.heads_q = queries.shape[rank - 2], p.space.heads_kv = heads_kv;
  check(heads_kv > 0 && p.space.heads_q % heads_kv == 0, "ERR_SHAPE", op, ": ", p.space.heads_q, " query heads are not a multiple of ",
        heads_kv, " key heads");
  p.slots = p.space.axis[0].kernel * p.space.axis[1].kernel * p.space.axis[2].kernel;
  p.scale = 1;
  return p;
}

Dims with_last(const Tensor& t, int64_t heads, int64_t last) {
  Dims shape = t.shape;
  shape[t.rank() - 2] = heads, shape[t.rank() - 1] = last;
  return shape;
}

void check_shape(const char* op, const char* what, const Tensor& t, const Dims& expected) {
  check_plain(op, what, t);
  check(t.shape == expected, "ERR_SHAPE", op, ": ", what, " has shape ", text_of(t.shape), ", expected ", text_of(expected));
}

// The device of the operands; throws ERR_UNSUPPORTED where its kernels do not take the call.
Device device_for(const char* op, const NeighborhoodPairParams& p, const Tensor& a, const Tensor& b) {
  const Device device = common_device(op, {&a, &b});
  const char* refusal = device.is_cpu() ? nullptr : cuda::neighborhood_pair_refusal(p);
  check(!refusal, "ERR_UNSUPPORTED", op, " on ", name_of(device), ": ", refusal ? refusal : "");
  return device;
}

Tensor dot(const Tensor& x, const Tensor& keys, const std::vector<int64_t>& axes, double scale, double unseen) {
  constexpr const char* op = "neighborhoodQK";
  check(keys.rank() == x.rank(), "ERR_SHAPE", op, ": got ", text_of(x.shape), " and ", text_of(keys.shape));
  const int64_t heads_kv = keys.shape[keys.rank() - 2], dim = x.shape[x.rank() - 1];
  NeighborhoodPairParams p = bind(op, x, heads_kv, axes);
  check_shape(op, "k", keys, with_last(x, heads_kv, dim));
  const Device device = device_for(op, p, x, keys);
  Tensor weights = Tensor::empty(with_last(x, p.space.heads_q, p.slots), DType::F32, device);
  p.space.dim = dim, p.x = x.data<float>(), p.keys = keys.data<float>(), p.weights = weights.data<float>();
  p.scale = static_cast<float>(scale), p.unseen = static_cast<float>(unseen);
  launch(
      op, device, {x.storage.get(), keys.storage.get()}, {weights.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::neighborhood_dot<isa()>(p, ctx.pool, ctx.cancel); }); },
      [p](cuda::Stream& stream) { cuda::neighborhood_dot(p, stream); });
  return weights;
}

Tensor gather(const Tensor& weights, const Tensor& keys, const std::vector<int64_t>& axes, double scale) {
  constexpr const char* op = "neighborhoodAV";
  check(keys.rank() == weights.rank(), "ERR_SHAPE", op, ": got ", text_of(weights.shape), " and ", text_of(keys.shape));
  const int64_t heads_kv = keys.shape[keys.rank() - 2], dim = keys.shape[keys.rank() - 1];
  NeighborhoodPairParams p = bind(op, weights, heads_kv, axes);
  check_shape(op, "weights", weights, with_last(weights, p.space.heads_q, p.slots));
  check_shape(op, "v", keys, with_last(weights, heads_kv, dim));
  const Device device = device_for(op, p, weights, keys);
  Tensor out = Tensor::empty(with_last(weights, p.space.heads_q, dim), DType::F32, device);
  p.space.dim = dim, p.keys = keys.data<float>(), p.weights = weights.data<float>(), p.out = out.data<float>();
  p.scale = static_cast<float>(scale);
  launch(
      op, device, {weights.storage.get(), keys.storage.get()}, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::neighborhood_gather<isa()>(p, ctx.pool, ctx.cancel); }); },
      [p](cuda::Stream& stream) { cuda::neighborhood_gather(p, stream); });
  return out;
}

Tensor scatter(const Tensor& weights, const Tensor& x, const std::vector<int64_t>& axes, double scale, int64_t heads_kv) {
  constexpr const char* op = "neighborhoodScatter";
  NeighborhoodPairParams p = bind(op, weights, heads_kv, axes);
  check(x.rank() == weights.rank(), "ERR_SHAPE", op, ": got ", text_of(weights.shape), " and ", text_of(x.shape));
  const int64_t dim = x.shape[x.rank() - 1];
  check_shape(op, "weights", weights, with_last(weights, p.space.heads_q, p.slots));
  check_shape(op, "rows", x, with_last(weights, p.space.heads_q, dim));
  const Device device = device_for(op, p, weights, x);
  Tensor out = Tensor::empty(with_last(weights, heads_kv, dim), DType::F32, device);
  p.space.dim = dim, p.x = x.data<float>(), p.weights = weights.data<float>(), p.out = out.data<float>();
  p.scale = static_cast<float>(scale);
  launch(
      op, device, {weights.storage.get(), x.storage.get()}, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::neighborhood_scatter<isa()>(p, ctx.pool, ctx.cancel); }); },
      [p](cuda::Stream& stream) { cuda::neighborhood_scatter(p, stream); });
  return out;
}

Tensor loops(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<int64_t>& axes, double scale) {
  constexpr const char* op = "neighborhoodLoops";
  check(k.rank() == q.rank(), "ERR_SHAPE", op, ": got ", text_of(q.shape), " and ", text_of(k.shape));
  const int64_t heads_kv = k.shape[k.rank() - 2], dim = q.shape[q.rank() - 1];
  NeighborhoodPairParams p = bind(op, q, heads_kv, axes);
  check_shape(op, "k", k, with_last(q, heads_kv, dim));
  check_shape(op, "v", v, k.shape);
  Tensor out = Tensor::empty(q.shape, DType::F32), weights = Tensor::empty(with_last(q, p.space.heads_q, p.slots), DType::F32);
  p.space.dim = dim, p.x = q.data<float>(), p.keys = k.data<float>(), p.weights = weights.data<float>(), p.out = out.data<float>();
  p.scale = static_cast<float>(scale);
  const float* values = v.data<float>();
  Stream::cpu().launch(op, {q.storage.get(), k.storage.get(), v.storage.get()}, {out.storage.get(), weights.storage.get()},
                       [p, values](const TaskContext& ctx) {
                         dispatch_isa([&](auto isa) { cpu::neighborhood_loops<isa()>(p, values, ctx.pool, ctx.cancel); });
                       });
  return out;
}

const RegisterOp<&dot> dot_registration{"neighborhoodDot"};
const RegisterOp<&gather> gather_registration{"neighborhoodGather"};
const RegisterOp<&scatter> scatter_registration{"neighborhoodScatter"};
const RegisterOp<&loops> loops_registration{"neighborhoodLoops"};

}  // namespace
}  // namespace fovea
