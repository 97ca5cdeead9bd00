#include "ops/neighborhood_call.h"

#include "core/error.h"

namespace fovea {
namespace {

constexpr int64_t kMaxDim = 256;

void check_dtype(const char* op, const char* what, const Tensor& t, DType dtype) {
  check(t.dtype == DType::F32 || t.dtype == DType::BF16 || t.dtype == DType::F16, "ERR_DTYPE", op, ": ", what, " is ", name_of(t.dtype),
        ", expected f32, bf16 or f16");
  check(t.dtype == dtype, "ERR_DTYPE", op, ": ", what, " is ", name_of(t.dtype), ", q is ", name_of(dtype), ", expected one dtype");
}

// q, k and v agree in batch and space, k and v in heads, q and k in dim.
void check_shapes(const char* op, const Tensor& q, const Tensor& k, const Tensor& v) {
  const int rank = q.rank();
  check(rank >= 4 && rank <= 6 && k.rank() == rank && v.rank() == rank, "ERR_SHAPE", op, ": got q ", text_of(q.shape), ", k ",
        text_of(k.shape), ", v ", text_of(v.shape), ", expected [batch, ...space, heads, dim] with 1 to 3 axes of space");
  for (int i = 0; i < rank - 2; i++)
    check(q.shape[i] == k.shape[i] && q.shape[i] == v.shape[i], "ERR_SHAPE", op, ": q ", text_of(q.shape), ", k ", text_of(k.shape), ", v ",
          text_of(v.shape), " differ in batch or space");
  check(k.shape[rank - 2] == v.shape[rank - 2] && q.shape[rank - 1] == k.shape[rank - 1], "ERR_SHAPE", op, ": q ", text_of(q.shape), ", k ",
        text_of(k.shape), ", v ", text_of(v.shape), " do not fit: k and v share heads, q and k share dim");
  const int64_t heads = q.shape[rank - 2], heads_kv = k.shape[rank - 2];
  check(heads_kv > 0 && heads % heads_kv == 0, "ERR_SHAPE", op, ": ", heads, " query heads are not a multiple of ", heads_kv, " key heads");
  for (int64_t dim : {q.shape[rank - 1], v.shape[rank - 1]})
    check(dim >= 1 && dim <= kMaxDim, "ERR_SHAPE", op, ": head dim ", dim, ", expected 1 to ", kMaxDim);
}

void bind_extra(const char* op, NeighborhoodParams& p, const Tensor& k, const Tensor& v) {
  check(k.storage && v.storage, "ERR_ARGUMENT", op, ": extra keys need extra values, and the reverse");
  check_dtype(op, "extra k", k, p.dtype);
  check_dtype(op, "extra v", v, p.dtype);
  check(k.rank() == 4 && v.rank() == 4 && k.shape[1] == v.shape[1] && k.shape == Dims({p.batch, k.shape[1], p.heads_kv, p.dim}) &&
            v.shape == Dims({p.batch, k.shape[1], p.heads_kv, p.dim_v}),
        "ERR_SHAPE", op, ": extra k ", text_of(k.shape), ", extra v ", text_of(v.shape), ", expected [", p.batch, ", n, ", p.heads_kv, ", ",
        p.dim, "] and [", p.batch, ", n, ", p.heads_kv, ", ", p.dim_v, "]");
  p.extra = k.shape[1];
  p.extra_k = neighborhood_tensor(k), p.extra_v = neighborhood_tensor(v);
}

void bind_bias(const char* op, NeighborhoodParams& p, const Tensor& rpb, int axes) {
  check(rpb.dtype == DType::F32 && rpb.contiguous(), "ERR_DTYPE", op, ": rpb is ", name_of(rpb.dtype), ", expected f32, contiguous");
  Dims expected = {p.heads_q};
  for (int a = kNeighborhoodAxes - axes; a < kNeighborhoodAxes; a++) expected.push(2 * p.axis[a].kernel - 1);
  check(rpb.shape == expected, "ERR_SHAPE", op, ": rpb has shape ", text_of(rpb.shape), ", expected [heads, 2 kernel - 1 of each axis], ",
        text_of(expected));
  p.rpb = rpb.data<float>();
}

}  // namespace

NeighborhoodTensor neighborhood_tensor(const Tensor& t) {
  const int rank = t.rank(), axes = rank - 3;
  NeighborhoodTensor n{t.data(), t.strides[0], {}, t.strides[rank - 2], t.strides[rank - 1]};
  for (int i = 0; i < axes; i++) n.sp[kNeighborhoodAxes - axes + i] = t.strides[1 + i];
  return n;
}

Dims neighborhood_rows(const Tensor& q) {
  Dims rows;
  for (int i = 0; i + 1 < q.rank(); i++) rows.push(q.shape[i]);
  return rows;
}

void bind_neighborhood_axes(const char* op, NeighborhoodParams& p, const Dims& shape, const std::vector<int64_t>& axes) {
  const int count = shape.rank - 3;
  check(count >= 1 && count <= kNeighborhoodAxes && axes.size() == static_cast<size_t>(count * kNeighborhoodAxisIntegers), "ERR_SHAPE", op,
        ": shape ", text_of(shape), " with settings for ", axes.size() / kNeighborhoodAxisIntegers,
        " axes; expected [batch, ...space, heads, dim] with 1 to 3 axes of space, and settings for each");
  p.tokens = 1;
  for (int i = 0; i < count; i++) {
    const int64_t* n = axes.data() + i * kNeighborhoodAxisIntegers;
    NeighborhoodAxis& a = p.axis[kNeighborhoodAxes - count + i];
    a = {shape[1 + i], n[0], n[1], n[2], n[3] != 0};
    check(a.kernel >= 1 && a.stride >= 1 && a.stride <= a.kernel && a.dilation >= 1 && a.dilation <= a.length &&
              a.kernel <= a.length / a.dilation,
          "ERR_ARGUMENT", op, ": axis ", i, ": kernel size ", a.kernel, ", stride ", a.stride, ", dilation ", a.dilation, " on ", a.length,
          " tokens; expected 1 <= stride <= kernel size and kernel size * dilation <= tokens (pad the input, or make the kernel smaller)");
    p.tokens *= a.length;
  }
}

NeighborhoodParams bind_neighborhood(const char* op, const std::vector<Tensor>& t, const std::vector<int64_t>& axes, double scale) {
  check(t.size() == kNaOperands && t[kNaQuery].storage && t[kNaKey].storage && t[kNaValue].storage, "ERR_ARGUMENT", op,
        ": q, k and v are required");
  const Tensor &q = t[kNaQuery], &k = t[kNaKey], &v = t[kNaValue];
  NeighborhoodParams p{};
  p.dtype = q.dtype;
  check_dtype(op, "q", q, q.dtype);
  check_dtype(op, "k", k, q.dtype);
  check_dtype(op, "v", v, q.dtype);
  check_shapes(op, q, k, v);
  const int rank = q.rank();
  p.batch = q.shape[0], p.heads_q = q.shape[rank - 2], p.heads_kv = k.shape[rank - 2];
  p.dim = q.shape[rank - 1], p.dim_v = v.shape[rank - 1];
  p.scale = static_cast<float>(scale);
  check(p.scale == p.scale, "ERR_ARGUMENT", op, ": scale is not a number");
  bind_neighborhood_axes(op, p, q.shape, axes);
  p.q = neighborhood_tensor(q), p.k = neighborhood_tensor(k), p.v = neighborhood_tensor(v);
  if (t[kNaExtraKey].storage || t[kNaExtraValue].storage) bind_extra(op, p, t[kNaExtraKey], t[kNaExtraValue]);
  if (t[kNaBias].storage) bind_bias(op, p, t[kNaBias], rank - 3);
  return p;
}

}  // namespace fovea
