// Tensor ops on a card against the CPU's kernels, which have a double-precision reference in the library's own tests: elementwise,
// conversions, fills, random streams, reductions, rows, indices, norms, losses, optimizer steps.
//   ops [--scale=1]   multiplies the sizes
#include "core/philox.h"
#include "cpu/convert.h"
#include "cpu/cross_entropy.h"
#include "cpu/elementwise.h"
#include "cpu/fill.h"
#include "cpu/layer_norm.h"
#include "cpu/linear.h"
#include "cpu/optimizer.h"
#include "cpu/random.h"
#include "cpu/reduce.h"
#include "cpu/rotary.h"
#include "cpu/rows.h"
#include "cpu/scan.h"
#include "cpu/scatter.h"
#include "cpu/softmax.h"
#include "cpu/sort.h"
#include "cpu/triangle.h"
#include "cuda/convert.h"
#include "cuda/cross_entropy.h"
#include "cuda/elementwise.h"
#include "cuda/fill.h"
#include "cuda/index_status.h"
#include "cuda/layer_norm.h"
#include "cuda/linear.h"
#include "cuda/optimizer.h"
#include "cuda/random.h"
#include "cuda/reduce.h"
#include "cuda/rotary.h"
#include "cuda/rows.h"
#include "cuda/scan.h"
#include "cuda/scatter.h"
#include "cuda/softmax.h"
#include "cuda/sort.h"
#include "cuda/triangle.h"
#include "twin.h"

using namespace fovea;
using namespace fovea::gpu;

namespace {

constexpr DType kFloats[] = {DType::F32, DType::BF16, DType::F16};
int64_t scale = 1;

ThreadPool& pool() { return ThreadPool::instance(); }
std::string named(const char* op, DType dtype) { return std::string(op) + " " + name_of(dtype); }

// The kernel of the CPU at its baseline level.
#define FOVEA_ON_CPU(kernel) [](const auto& p) { cpu::kernel<Isa::Baseline>(p, pool()); }
// A kernel that notes bad indices; these checks have none.
#define FOVEA_INDEXED(kernel)               \
  [](const auto& p, cuda::Stream& stream) { \
    const cuda::IndexStatus status(stream); \
    cuda::kernel(p, status.bad(), stream);  \
  }

// rows x columns, the second operand one row broadcast, the first with its axes swapped in memory.
ElementwiseParams elementwise(int op, DType compute, DType out, int inputs, int64_t rows, int64_t columns) {
  ElementwiseParams p{};
  p.op = op, p.compute = compute, p.out_dtype = out, p.inputs = static_cast<int8_t>(inputs), p.rank = 2;
  p.shape[0] = rows, p.shape[1] = columns;
  return p;
}

ElementwiseInput swapped(Twin& t, Side side, int64_t rows) { return {t.at(side), t.dtype(), {1, rows}}; }
ElementwiseInput dense(Twin& t, Side side, int64_t columns) { return {t.at(side), t.dtype(), {columns, 1}}; }
ElementwiseInput broadcast(Twin& t, Side side) { return {t.at(side), t.dtype(), {0, 1}}; }

void check_elementwise(Comparison& on) {
  const int64_t rows = 37 * scale, columns = 131;
  const auto n = static_cast<size_t>(rows * columns);
  for (DType dtype : kFloats) {
    Twin x = on.uniform(dtype, n, 0.05, 2), y = on.uniform(dtype, static_cast<size_t>(columns), 0.05, 2),
         grad = on.uniform(dtype, n, -1, 1);
    for (int op = 0; op < static_cast<int>(UnaryOp::Not); op++) {
      Twin out = on.blank(dtype, n);
      const auto params = [&](Side side) {
        ElementwiseParams p = elementwise(op, DType::F32, dtype, 1, rows, columns);
        p.in[0] = swapped(x, side, rows), p.out = out.at(side);
        p.scalars[0] = 0.5, p.scalars[1] = 1.5;
        return p;
      };
      on.check(named("unary", dtype), {&out}, tolerance_of(dtype), params, FOVEA_ON_CPU(unary), cuda::unary);
    }
    // The second input is the argument of some and the result of others: in (0, 2) it will do as either.
    for (UnaryOp op : {UnaryOp::Square, UnaryOp::Exp, UnaryOp::Log, UnaryOp::Sqrt, UnaryOp::Tanh, UnaryOp::Gelu, UnaryOp::Silu}) {
      Twin out = on.blank(dtype, n);
      const auto params = [&](Side side) {
        ElementwiseParams p = elementwise(static_cast<int>(op), DType::F32, dtype, 2, rows, columns);
        p.in[0] = dense(grad, side, columns), p.in[1] = dense(x, side, columns), p.out = out.at(side);
        return p;
      };
      on.check(named("unary backward", dtype), {&out}, tolerance_of(dtype), params, FOVEA_ON_CPU(unary_backward), cuda::unary_backward);
    }
    for (int op = 0; op < static_cast<int>(BinaryOp::And); op++) {
      const bool compares = op >= static_cast<int>(BinaryOp::Eq);
      const DType out_dtype = compares ? DType::Bool : dtype;
      Twin out = on.blank(out_dtype, n);
      const auto params = [&](Side side) {
        ElementwiseParams p = elementwise(op, DType::F32, out_dtype, 2, rows, columns);
        p.in[0] = swapped(x, side, rows), p.in[1] = broadcast(y, side), p.out = out.at(side);
        return p;
      };
      on.check(named("binary", dtype), {&out}, tolerance_of(dtype), params, FOVEA_ON_CPU(binary), cuda::binary);
    }
    Twin condition = on.integers(DType::Bool, n, 0, 1), out = on.blank(dtype, n);
    const auto params = [&](Side side) {
      ElementwiseParams p = elementwise(0, DType::F32, dtype, 3, rows, columns);
      p.in[0] = dense(condition, side, columns), p.in[1] = swapped(x, side, rows), p.in[2] = broadcast(y, side), p.out = out.at(side);
      return p;
    };
    on.check(named("where", dtype), {&out}, 0, params, FOVEA_ON_CPU(where), cuda::where);
  }
  Twin x = on.integers(DType::Bool, n, 0, 1), y = on.integers(DType::Bool, static_cast<size_t>(columns), 0, 1);
  for (BinaryOp op : {BinaryOp::And, BinaryOp::Or, BinaryOp::Xor}) {
    Twin out = on.blank(DType::Bool, n);
    const auto params = [&](Side side) {
      ElementwiseParams p = elementwise(static_cast<int>(op), DType::I32, DType::Bool, 2, rows, columns);
      p.in[0] = swapped(x, side, rows), p.in[1] = broadcast(y, side), p.out = out.at(side);
      return p;
    };
    on.check("binary bool", {&out}, 0, params, FOVEA_ON_CPU(binary), cuda::binary);
  }
}

void check_copies(Comparison& on) {
  const int64_t rows = 33 * scale, columns = 70;
  const auto n = static_cast<size_t>(rows * columns);
  for (int from = 0; from < kDTypeCount; from++)
    for (int to = 0; to < kDTypeCount; to++) {
      const auto source = static_cast<DType>(from), target = static_cast<DType>(to);
      const bool small = source == DType::Bool || source == DType::U8;
      Twin x = is_floating(source) ? on.uniform(source, n, -300, 300)
                                   : on.integers(source, n, small ? 0 : -300, source == DType::Bool ? 1 : 200);
      Twin out = on.blank(target, n);
      on.check(
          "convert", {&out}, 0,
          [&](Side side) {
            return CopyParams{x.at(side), source, out.at(side), target, 2, {rows, columns}, {1, rows}, {columns, 1}};
          },
          FOVEA_ON_CPU(copy), cuda::convert);
    }
  for (DType dtype : {DType::F32, DType::F64, DType::I32, DType::I64}) {
    Twin out = on.blank(dtype, n);
    const auto count = static_cast<int64_t>(n);
    on.check(
        "sequence", {&out}, 0,
        [&](Side side) {
          return cpu::SequenceParams{out.at(side), count, dtype, -3, 0.75};
        },
        FOVEA_ON_CPU(sequence),
        [](const cpu::SequenceParams& p, cuda::Stream& stream) {
          cuda::sequence({p.out, p.count, p.start, p.step}, p.dtype, stream);
        });
  }
  for (bool upper : {false, true}) {
    Twin x = on.uniform(DType::F16, n, -1, 1), out = on.blank(DType::F16, n);
    on.check(
        "triangle", {&out}, 0, [&](Side side) { return TriangleParams{x.at(side), out.at(side), 2, 3, rows / 3, columns, 5, upper}; },
        FOVEA_ON_CPU(triangle), cuda::triangle);
  }
}

void check_random(Comparison& on) {
  const auto n = static_cast<size_t>(5001 * scale);
  for (DType dtype : kFloats)
    for (Distribution distribution : {Distribution::Uniform, Distribution::Normal}) {
      Twin out = on.blank(dtype, n);
      const auto params = [&](Side side) {
        RandomParams p{};
        p.distribution = distribution, p.out = out.at(side), p.dtype = dtype, p.count = static_cast<int64_t>(n);
        p.seed = 7, p.offset = 1234567, p.scale = 2, p.shift = -1;
        return p;
      };
      on.check(named("random", dtype), {&out}, tolerance_of(dtype), params, FOVEA_ON_CPU(random), cuda::random);
    }
  for (Distribution distribution : {Distribution::Integer, Distribution::Bernoulli}) {
    Twin out = on.blank(DType::I32, n);
    const auto params = [&](Side side) {
      RandomParams p{};
      p.distribution = distribution, p.out = out.at(side), p.dtype = DType::I32, p.count = static_cast<int64_t>(n);
      p.seed = 7, p.offset = 99, p.low = -5, p.range = 1000, p.threshold = uint64_t{1} << 30;
      return p;
    };
    on.check("random i32", {&out}, 0, params, FOVEA_ON_CPU(random), cuda::random);
  }
  Twin x = on.uniform(DType::BF16, n, -1, 1), out = on.blank(DType::BF16, n);
  const auto params = [&](Side side) {
    return DropoutParams{x.at(side), out.at(side), DType::BF16, static_cast<int64_t>(n), 3, 17, uint64_t{3} << 30, 4 / 3.f};
  };
  on.check("dropout bf16", {&out}, 0, params, FOVEA_ON_CPU(dropout), cuda::dropout);
}

void check_rows(Comparison& on) {
  const int64_t outer = 5 * scale, length = 173, inner = 6, n = outer * length * inner;
  const auto count = static_cast<size_t>(n);
  for (DType dtype : kFloats) {
    Twin x = on.uniform(dtype, count, -3, 3), grad = on.uniform(dtype, count, -1, 1);
    for (bool log : {false, true})
      for (int64_t tail : {int64_t{1}, inner}) {
        Twin out = on.blank(dtype, count), back = on.blank(dtype, count);
        const SoftmaxParams shape{nullptr, nullptr, nullptr, dtype, n / length / tail, length, tail, log};
        const auto forward = [&](Side side) {
          SoftmaxParams p = shape;
          p.in = x.at(side), p.out = out.at(side);
          return p;
        };
        on.check(named("softmax", dtype), {&out}, tolerance_of(dtype), forward, FOVEA_ON_CPU(softmax), cuda::softmax);
        const auto backward = [&](Side side) {
          SoftmaxParams p = shape;
          p.in = out.at(side), p.grad = grad.at(side), p.out = back.at(side);
          return p;
        };
        on.check(named("softmax backward", dtype), {&back}, tolerance_of(dtype), backward, FOVEA_ON_CPU(softmax_backward),
                 cuda::softmax_backward);
      }
    for (bool reverse : {false, true}) {
      Twin out = on.blank(dtype, count);
      on.check(
          named("cumsum", dtype), {&out}, tolerance_of(dtype),
          [&](Side side) { return ScanParams{x.at(side), out.at(side), dtype, dtype, outer, length, inner, reverse}; },
          FOVEA_ON_CPU(cumsum), cuda::cumsum);
    }
    for (int op = 0; op < kReduceOps; op++) {
      const auto reduce_op = static_cast<ReduceOp>(op);
      if (reduce_op == ReduceOp::Prod) continue;  // 173 factors of up to 3 leave every range
      const bool index = reduce_op == ReduceOp::ArgMax || reduce_op == ReduceOp::ArgMin;
      const bool truth = reduce_op == ReduceOp::Any || reduce_op == ReduceOp::All;
      const DType out_dtype = index ? DType::I64 : truth ? DType::Bool : dtype;
      for (bool middle : {false, true}) {
        Twin out = on.blank(out_dtype, static_cast<size_t>(middle ? outer * inner : outer * length));
        const auto params = [&](Side side) {
          ReduceParams p{};
          p.op = op, p.compute = DType::F32, p.in_dtype = dtype, p.out_dtype = out_dtype;
          p.in = x.at(side), p.out = out.at(side), p.correction = 1;
          p.kept_rank = 2, p.reduced_rank = 1;
          p.kept_shape[0] = outer, p.kept_strides[0] = length * inner;
          p.kept_shape[1] = middle ? inner : length, p.kept_strides[1] = middle ? 1 : inner;
          p.reduced_shape[0] = middle ? length : inner, p.reduced_strides[0] = middle ? inner : 1;
          return p;
        };
        on.check(named("reduce", dtype), {&out}, index || truth ? 0 : tolerance_of(dtype), params, FOVEA_ON_CPU(reduce), cuda::reduce);
      }
    }
    for (bool descending : {false, true})
      for (int64_t k : {length, int64_t{7}}) {
        const int64_t rows = outer * inner;
        Twin values = on.blank(dtype, static_cast<size_t>(rows * k)), indices = on.blank(DType::I32, static_cast<size_t>(rows * k));
        on.check(
            named("sort", dtype), {&values, &indices}, 0,
            [&](Side side) {
              return SortParams{x.at(side), dtype, rows, length, k, descending, values.at(side), indices.at<int32_t>(side)};
            },
            FOVEA_ON_CPU(sort), cuda::sort);
      }
  }
}

void check_norms(Comparison& on) {
  const int64_t rows = 21 * scale, width = 200;
  const auto n = static_cast<size_t>(rows * width), w = static_cast<size_t>(width), r = static_cast<size_t>(rows);
  for (DType dtype : kFloats)
    for (bool rms : {false, true}) {
      Twin x = on.uniform(dtype, n, -2, 3), weight = on.uniform(dtype, w, 0.5, 1.5), bias = on.uniform(dtype, w, -1, 1);
      Twin grad = on.uniform(dtype, n, -1, 1), out = on.blank(dtype, n), mean = on.filled(DType::F32, r, 0),
           rstd = on.filled(DType::F32, r, 0);
      const auto forward = [&](Side side) {
        return NormParams{rows,
                          width,
                          dtype,
                          dtype,
                          x.at(side),
                          weight.at(side),
                          bias.at(side),
                          out.at(side),
                          rms ? nullptr : mean.at<float>(side),
                          rstd.at<float>(side),
                          1e-5f};
      };
      on.check(named("norm", dtype), {&out, &mean, &rstd}, tolerance_of(dtype), forward, FOVEA_ON_CPU(norm), cuda::norm);
      Twin grad_x = on.blank(dtype, n), grad_weight = on.blank(dtype, w), grad_bias = on.blank(dtype, w);
      Twin partial = on.blank(DType::F32, static_cast<size_t>(norm_partial_floats(rows, width)));
      const auto backward = [&](Side side) {
        return NormBackwardParams{rows,
                                  width,
                                  dtype,
                                  dtype,
                                  x.at(side),
                                  weight.at(side),
                                  grad.at(side),
                                  rms ? nullptr : mean.at<float>(side),
                                  rstd.at<float>(side),
                                  grad_x.at(side),
                                  grad_weight.at(side),
                                  grad_bias.at(side),
                                  partial.at<float>(side)};
      };
      on.check(named("norm backward", dtype), {&grad_x, &grad_weight, &grad_bias}, tolerance_of(dtype), backward,
               FOVEA_ON_CPU(norm_backward), cuda::norm_backward);
    }
}

void check_indices(Comparison& on) {
  const int64_t outer = 3 * scale, size = 50, count = 70, inner = 9;
  const auto table = static_cast<size_t>(outer * size * inner), picked = static_cast<size_t>(outer * count * inner);
  for (DType index_dtype : {DType::I32, DType::I64}) {
    Twin x = on.uniform(DType::F32, table, -1, 1), src = on.uniform(DType::F32, picked, -1, 1);
    Twin ids = on.integers(index_dtype, static_cast<size_t>(outer * count), 0, size - 1), out = on.blank(DType::F32, picked);
    const auto shape = [&](Side side) { return IndexedShape{outer, size, count, inner, 1, {ids.at(side), index_dtype}}; };
    on.check(
        "gather", {&out}, 0,
        [&](Side side) {
          return GatherParams{shape(side), x.at(side), out.at(side), 4};
        },
        FOVEA_ON_CPU(gather), FOVEA_INDEXED(gather));
    Twin scattered = on.filled(DType::F32, table, 1), sums = on.filled(DType::F32, table, 0);
    Twin counts = on.filled(DType::F32, static_cast<size_t>(outer * size), 0);
    on.check(
        "scatter", {&scattered}, 0,
        [&](Side side) {
          return ScatterParams{shape(side), src.at(side), scattered.at(side), 4};
        },
        FOVEA_ON_CPU(scatter), FOVEA_INDEXED(scatter));
    on.check(
        "scatter add", {&sums, &counts}, 2e-5,
        [&](Side side) {
          return ScatterAddParams{shape(side), src.at(side), DType::F32, sums.at<float>(side), counts.at<float>(side)};
        },
        FOVEA_ON_CPU(scatter_add), FOVEA_INDEXED(scatter_add));
    Twin row_ids = on.integers(index_dtype, static_cast<size_t>(count), 0, size - 1), rows = on.blank(DType::F32, picked);
    Twin added = on.blank(DType::F32, table), work = on.blank(DType::I64, static_cast<size_t>(size + 1 + count));
    on.check(
        "gather rows", {&rows}, 0,
        [&](Side side) {
          return GatherRowsParams{x.at(side), rows.at(side), outer, size, count, inner * 4, {row_ids.at(side), index_dtype}};
        },
        FOVEA_ON_CPU(gather_rows), FOVEA_INDEXED(gather_rows));
    on.check(
        "add rows", {&added}, 2e-5,
        [&](Side side) {
          return AddRowsParams{
              src.at(side), added.at(side), DType::F32, outer, size, count, inner, {row_ids.at(side), index_dtype}, work.at<int64_t>(side)};
        },
        FOVEA_ON_CPU(add_rows), FOVEA_INDEXED(add_rows));
  }
}

void check_model_parts(Comparison& on) {
  const int64_t batch = 2 * scale, heads = 3, length = 19, width = 32, dims = 24;
  const auto n = static_cast<size_t>(batch * heads * length * width), angles = static_cast<size_t>(64 * dims / 2);
  for (DType dtype : kFloats)
    for (bool interleaved : {false, true}) {
      Twin x = on.uniform(dtype, n, -1, 1), out = on.blank(dtype, n), cosines = on.uniform(DType::F32, angles, -1, 1);
      Twin sines = on.uniform(DType::F32, angles, -1, 1), positions = on.integers(DType::I32, static_cast<size_t>(length), 0, 40);
      const auto params = [&](Side side) {
        const int64_t row = width, head = length * width, whole = heads * head;
        return RotaryParams{batch,
                            heads,
                            length,
                            width,
                            dims,
                            dtype,
                            x.at(side),
                            out.at(side),
                            whole,
                            head,
                            row,
                            whole,
                            head,
                            row,
                            cosines.at<float>(side),
                            sines.at<float>(side),
                            64,
                            {positions.at(side), DType::I32},
                            0,
                            5,
                            interleaved,
                            false};
      };
      on.check(named("rotary", dtype), {&out}, tolerance_of(dtype), params, FOVEA_ON_CPU(rotary), FOVEA_INDEXED(rotary));

      Twin grad = on.uniform(dtype, n, -1, 1), back = on.blank(dtype, n);
      const auto activation = [&](Side side) {
        return ActivationGradParams{
            dtype, interleaved ? Activation::Gelu : Activation::Silu, static_cast<int64_t>(n), grad.at(side), x.at(side), back.at(side)};
      };
      on.check(named("activation gradient", dtype), {&back}, tolerance_of(dtype), activation, FOVEA_ON_CPU(activation_grad),
               cuda::activation_grad);
    }
  const int64_t rows = 23 * scale, classes = 301;
  const auto r = static_cast<size_t>(rows), logits_count = static_cast<size_t>(rows * classes);
  for (DType dtype : kFloats) {
    Twin logits = on.uniform(dtype, logits_count, -4, 4), targets = on.integers(DType::I64, r, -1, classes - 1);
    Twin lse = on.blank(DType::F32, r), losses = on.blank(DType::F32, r), grads = on.blank(dtype, logits_count),
         one = on.filled(DType::F32, 1, 1);
    on.check(
        named("cross entropy", dtype), {&lse, &losses}, 2e-5,
        [&](Side side) {
          return CrossEntropyParams{
              rows, classes, dtype, logits.at(side), {targets.at(side), DType::I64}, -1, 0.1f, lse.at<float>(side), losses.at<float>(side)};
        },
        FOVEA_ON_CPU(cross_entropy), FOVEA_INDEXED(cross_entropy));
    on.check(
        named("cross entropy backward", dtype), {&grads}, tolerance_of(dtype),
        [&](Side side) {
          return CrossEntropyBackwardParams{rows,
                                            classes,
                                            dtype,
                                            logits.at(side),
                                            {targets.at(side), DType::I64},
                                            -1,
                                            0.1f,
                                            lse.at<float>(side),
                                            one.at<float>(side),
                                            0,
                                            nullptr,
                                            grads.at(side)};
        },
        FOVEA_ON_CPU(cross_entropy_backward), cuda::cross_entropy_backward);
  }
}

void check_optimizers(Comparison& on) {
  const auto n = static_cast<size_t>(kOptimizerTile * scale + 77);
  for (DType dtype : kFloats) {
    Twin param = on.uniform(dtype, n, -1, 1), grad = on.uniform(dtype, n, -1, 1), first = on.uniform(DType::F32, n, -1, 1);
    Twin second = on.uniform(DType::F32, n, 0, 1), master = on.uniform(DType::F32, n, -1, 1);
    OptimizerItem item;
    const auto at = [&](Side side) {
      item = {param.at(side),
              grad.at(side),
              first.at<float>(side),
              second.at<float>(side),
              dtype == DType::F32 ? nullptr : master.at<float>(side),
              static_cast<int64_t>(n),
              dtype,
              dtype};
      return &item;
    };
    on.check(
        named("adamw", dtype), {&param, &first, &second, &master}, tolerance_of(dtype),
        [&](Side side) { return AdamWParams{at(side), 1, 0.999f, 0.9f, 0.1f, 0.999f, 0.001f, 0.01f, 3, 1e-8f}; }, FOVEA_ON_CPU(adamw),
        cuda::adamw);
    on.check(
        named("sgd", dtype), {&param, &first, &master}, tolerance_of(dtype),
        [&](Side side) { return SgdParams{at(side), 1, 0.1f, 0.9f, 0.01f, true}; }, FOVEA_ON_CPU(sgd), cuda::sgd);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Gpu gpu;
    Report report("ops");
    Comparison on(gpu, report);
    scale = static_cast<int64_t>(argument(argc, argv, "scale", 1));
    check_elementwise(on);
    check_copies(on);
    check_random(on);
    check_rows(on);
    check_norms(on);
    check_indices(on);
    check_model_parts(on);
    check_optimizers(on);
    return report.finish();
  });
}
