// Copies: contiguous, cast, copyFrom.
#include "ops/copy.h"

#include "core/op.h"
#include "cuda/convert.h"
#include "ops/device.h"

namespace fovea {

cpu::CopyParams copy_params(const Tensor& from, const Tensor& to) {
  cpu::CopyParams p{};
  p.src = from.data();
  p.src_dtype = from.dtype;
  p.dst = to.data();
  p.dst_dtype = to.dtype;
  p.rank = to.rank();
  for (int i = 0; i < p.rank; i++) {
    p.shape[i] = to.shape[i];
    p.src_strides[i] = from.strides[i];
    p.dst_strides[i] = to.strides[i];
  }
  return p;
}

void run_copy(const TaskContext& ctx, const cpu::CopyParams& p) {
  dispatch_isa([&](auto isa) { cpu::copy<isa()>(p, ctx.pool); });
}

namespace {

void queue_copy(const char* op, const Tensor& from, const Tensor& to, bool in_place) {
  const cpu::CopyParams p = copy_params(from, to);
  launch(
      op, common_device(op, {&from, &to}), {from.storage.get()}, {to.storage.get()}, [p](const TaskContext& ctx) { run_copy(ctx, p); },
      [p](cuda::Stream& stream) { cuda::convert(p, stream); }, in_place);
}

}  // namespace

Tensor copy_as(const Tensor& t, DType dtype) {
  Tensor out = Tensor::empty(t.shape, dtype, t.device());
  queue_copy("copy", t, out, false);
  return out;
}

Tensor contiguous(const Tensor& t) { return t.contiguous() ? t : copy_as(t, t.dtype); }

namespace {

// `t` itself when it is contiguous and nothing else has its memory, else a queued copy.
Tensor own(const Tensor& t) { return t.contiguous() && t.storage->sole_owner() ? t : copy_as(t, t.dtype); }

Tensor cast(const Tensor& t, int64_t dtype) {
  check(dtype >= 0 && dtype < kDTypeCount, "ERR_DTYPE", "cast: unknown dtype code ", dtype);
  return copy_as(t, static_cast<DType>(dtype));
}

void copy_from(const Tensor& target, const Tensor& source) {
  check(!target.storage->read_only(), "ERR_ARGUMENT", "copyFrom: the target is read-only memory (a mapped file)");
  check(target.elements_apart(), "ERR_ARGUMENT", "copyFrom: several indices of the target of shape ", text_of(target.shape), ", strides ",
        text_of(target.strides), " are one element; write to the tensor that the view was expanded from");
  check(source.rank() <= target.rank(), "ERR_SHAPE", "copyFrom: a source of shape ", text_of(source.shape),
        " does not broadcast to the target's, ", text_of(target.shape));
  common_device("copyFrom", {&target, &source});
  Tensor from = source.broadcast_to(target.shape);
  // Overlapping source and target are read in full before anything is written.
  if (source.storage.get() == target.storage.get()) from = copy_as(from, from.dtype);
  target.storage->bump_version();
  queue_copy("copyFrom", from, target, true);
}

const RegisterOp<&contiguous> contiguous_registration{"contiguous"};
const RegisterOp<&own> own_registration{"own"};
const RegisterOp<&cast> cast_registration{"cast"};
const RegisterOp<&copy_from> copy_from_registration{"copyFrom"};

}  // namespace
}  // namespace fovea
