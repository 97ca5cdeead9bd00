// full, arange (and linspace) and eye.
#include "core/op.h"
#include "core/stream.h"
#include "cpu/fill.h"
#include "cuda/fill.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/dtypes.h"
#include "ops/fill.h"

namespace fovea {
namespace {

// The bytes of `value` as an element of `dtype`, converted as cast() converts.
uint64_t pattern_of(double value, DType dtype) {
  uint64_t pattern = 0;
  dispatch_isa([&](auto isa) { cpu::convert_one<isa()>(&value, DType::F64, &pattern, dtype); });
  return pattern;
}

}  // namespace

void run_fill(const TaskContext& ctx, const FillTask& task) {
  cpu::FillParams p{task.out, task.count, static_cast<int>(size_of(task.dtype)), pattern_of(task.value, task.dtype)};
  dispatch_isa([&](auto isa) { cpu::fill<isa()>(p, ctx.pool); });
}

void run_fill(cuda::Stream& stream, const FillTask& task) {
  stream.fill(task.out, pattern_of(task.value, task.dtype), static_cast<int>(size_of(task.dtype)), static_cast<size_t>(task.count));
}

namespace {

Tensor full(const Dims& shape, double value, int64_t code, int64_t device) {
  Tensor out = Tensor::empty(shape, dtype_of("full", code), Device::from_code(device));
  launch(
      "full", out.device(), {}, {out.storage.get()}, [task = FillTask(out, value)](const TaskContext& ctx) { run_fill(ctx, task); },
      [task = FillTask(out, value)](cuda::Stream& stream) { run_fill(stream, task); });
  return out;
}

// start + i step for i < count; 16-bit floats and small integers by way of f32 and i32.
Tensor sequence(double start, double step, int64_t count, int64_t code, int64_t device) {
  DType dtype = dtype_of("arange", code);
  bool direct = dtype == DType::F32 || dtype == DType::F64 || dtype == DType::I32 || dtype == DType::I64;
  Tensor out = Tensor::empty({count}, direct ? dtype : is_floating(dtype) ? DType::F32 : DType::I32, Device::from_code(device));
  cpu::SequenceParams p{out.data(), count, out.dtype, start, step};
  launch(
      "arange", out.device(), {}, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::sequence<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) {
        cuda::sequence({p.out, p.count, p.start, p.step}, p.dtype, stream);
      });
  return direct ? out : copy_as(out, dtype);
}

const RegisterOp<&full> full_registration{"full"};
const RegisterOp<&sequence> sequence_registration{"sequence"};

}  // namespace
}  // namespace fovea
