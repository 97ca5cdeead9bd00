// rand, randn, randint, bernoulli and dropout. Seed and offset come from the generator in lib/ops/random.ts.
#include "cpu/random.h"

#include "core/op.h"
#include "core/stream.h"
#include "cuda/random.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/dtypes.h"

namespace fovea {
namespace {

Tensor generate(const char* op, const Dims& shape, int64_t device, cpu::RandomParams p) {
  Tensor out = Tensor::empty(shape, p.dtype, Device::from_code(device));
  p.out = out.data();
  p.count = out.count();
  launch(
      op, out.device(), {}, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::random<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::random(p, stream); });
  return out;
}

cpu::RandomParams params_of(cpu::Distribution distribution, DType dtype, int64_t seed, int64_t offset) {
  cpu::RandomParams p{};
  p.distribution = distribution;
  p.dtype = dtype;
  p.seed = static_cast<uint64_t>(seed);
  p.offset = static_cast<uint64_t>(offset);
  return p;
}

cpu::RandomParams scaled(cpu::RandomParams p, double scale, double shift) {
  p.scale = static_cast<float>(scale);
  p.shift = static_cast<float>(shift);
  return p;
}

Tensor random_uniform(const Dims& shape, int64_t code, int64_t seed, int64_t offset, double scale, double shift, int64_t device) {
  DType dtype = dtype_of("rand", code);
  check(is_floating(dtype), "ERR_DTYPE", "rand: dtype ", name_of(dtype), " is not a floating one");
  return generate("rand", shape, device, scaled(params_of(cpu::Distribution::Uniform, dtype, seed, offset), scale, shift));
}

Tensor random_normal(const Dims& shape, int64_t code, int64_t seed, int64_t offset, double scale, double shift, int64_t device) {
  DType dtype = dtype_of("randn", code);
  check(is_floating(dtype), "ERR_DTYPE", "randn: dtype ", name_of(dtype), " is not a floating one");
  return generate("randn", shape, device, scaled(params_of(cpu::Distribution::Normal, dtype, seed, offset), scale, shift));
}

Tensor random_integer(const Dims& shape, int64_t code, int64_t seed, int64_t offset, double low, double high, int64_t device) {
  DType dtype = dtype_of("randint", code);
  check(dtype == DType::I32 || dtype == DType::I64 || dtype == DType::U8, "ERR_DTYPE", "randint: dtype ", name_of(dtype),
        " is not supported; expected i32, i64 or u8");
  check(high > low && high - low <= 4294967296.0, "ERR_ARGUMENT", "randint: bounds ", low, " to ", high,
        "; expected low < high, at most 2^32 apart");
  cpu::RandomParams p = params_of(cpu::Distribution::Integer, dtype, seed, offset);
  p.low = static_cast<int64_t>(low);
  p.range = static_cast<uint64_t>(high - low);
  return generate("randint", shape, device, p);
}

uint64_t threshold_of(double probability) { return static_cast<uint64_t>(probability * 4294967296.0 + 0.5); }

Tensor random_bernoulli(const Dims& shape, int64_t code, int64_t seed, int64_t offset, double probability, int64_t device) {
  cpu::RandomParams p = params_of(cpu::Distribution::Bernoulli, dtype_of("bernoulli", code), seed, offset);
  p.threshold = threshold_of(probability);
  return generate("bernoulli", shape, device, p);
}

// Keeps each element with probability `kept`, scaled by 1 / kept; the gradient is the same function of the same (seed, offset).
Tensor dropout(const Tensor& input, double kept, int64_t seed, int64_t offset) {
  check_float("dropout", input);
  Tensor x = contiguous(input), out = Tensor::empty(input.shape, input.dtype, input.device());
  cpu::DropoutParams p{};
  p.x = x.data();
  p.out = out.data();
  p.dtype = x.dtype;
  p.count = x.count();
  p.seed = static_cast<uint64_t>(seed);
  p.offset = static_cast<uint64_t>(offset);
  p.threshold = threshold_of(kept);
  p.scale = kept > 0 ? static_cast<float>(1 / kept) : 0.f;
  launch(
      "dropout", out.device(), {x.storage.get()}, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::dropout<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::dropout(p, stream); });
  return out;
}

const RegisterOp<&random_uniform> uniform_registration{"rand"};
const RegisterOp<&random_normal> normal_registration{"randn"};
const RegisterOp<&random_integer> integer_registration{"randint"};
const RegisterOp<&random_bernoulli> bernoulli_registration{"bernoulli"};
const RegisterOp<&dropout> dropout_registration{"dropout"};

}  // namespace
}  // namespace fovea
