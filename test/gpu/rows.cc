// Softmax, running sums, reductions, sorting and norms of rows on a card against the CPU's kernels.
//   rows [--scale=1]   multiplies the sizes
#include "cpu/layer_norm.h"
#include "cpu/reduce.h"
#include "cpu/scan.h"
#include "cpu/softmax.h"
#include "cpu/sort.h"
#include "cuda/layer_norm.h"
#include "cuda/reduce.h"
#include "cuda/scan.h"
#include "cuda/softmax.h"
#include "cuda/sort.h"
#include "on_cpu.h"

using namespace fovea;
using namespace fovea::gpu;

namespace {

int64_t scale = 1;

void check_rows(Comparison& on) {
  const int64_t outer = 5 * scale, length = 173, inner = 6, n = outer * length * inner;
  const auto count = static_cast<size_t>(n);
  for (DType dtype : kAllFloats) {
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
    for (bool reverse : {false, true})
      for (int64_t steps : {length, outer}) {  // along few columns and along many
        Twin out = on.blank(dtype, count);
        const int64_t columns = steps == outer ? length * inner : inner;
        on.check(
            named("cumsum", dtype), {&out}, tolerance_of(dtype),
            [&](Side side) { return ScanParams{x.at(side), out.at(side), dtype, dtype, n / steps / columns, steps, columns, reverse}; },
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
          p.op = op, p.compute = arithmetic(dtype), p.in_dtype = dtype, p.out_dtype = out_dtype;
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

// Integers, and rows longer than what one block takes.
void check_long_rows(Comparison& on) {
  const int64_t rows = 2 * scale, length = 70001, sorted = 5003, n = rows * length;
  for (DType dtype : {DType::F32, DType::F64, DType::I64}) {
    const bool integers = dtype == DType::I64;
    const double tolerance = integers ? 0 : tolerance_of(dtype);
    Twin x = integers ? on.integers(dtype, static_cast<size_t>(n), -300, 300) : on.uniform(dtype, static_cast<size_t>(n), -3, 3);
    for (ReduceOp op : {ReduceOp::Sum, ReduceOp::Max, ReduceOp::ArgMin}) {
      const DType out_dtype = op == ReduceOp::ArgMin ? DType::I64 : dtype;
      Twin out = on.blank(out_dtype, static_cast<size_t>(rows));
      const auto params = [&](Side side) {
        ReduceParams p{};
        p.op = static_cast<int>(op), p.compute = dtype, p.in_dtype = dtype, p.out_dtype = out_dtype;
        p.in = x.at(side), p.out = out.at(side);
        p.kept_rank = p.reduced_rank = 1;
        p.kept_shape[0] = rows, p.kept_strides[0] = length, p.reduced_shape[0] = length, p.reduced_strides[0] = 1;
        return p;
      };
      on.check(named("reduce, long", dtype), {&out}, tolerance, params, FOVEA_ON_CPU(reduce), cuda::reduce);
    }
    const int64_t k = sorted / 2;
    Twin values = on.blank(dtype, static_cast<size_t>(rows * k)), indices = on.blank(DType::I32, static_cast<size_t>(rows * k));
    on.check(
        named("sort, long", dtype), {&values, &indices}, 0,
        [&](Side side) { return SortParams{x.at(side), dtype, rows, sorted, k, true, values.at(side), indices.at<int32_t>(side)}; },
        FOVEA_ON_CPU(sort), cuda::sort);
  }
  Twin x = on.integers(DType::I32, static_cast<size_t>(n), -300, 300);
  for (int64_t columns : {int64_t{1}, length}) {
    Twin out = on.blank(DType::I64, static_cast<size_t>(n));
    on.check(
        "cumsum i64", {&out}, 0,
        [&](Side side) { return ScanParams{x.at(side), out.at(side), DType::I32, DType::I64, 1, n / columns, columns, false}; },
        FOVEA_ON_CPU(cumsum), cuda::cumsum);
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

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Gpu gpu;
    Report report("rows");
    Comparison on(gpu, report);
    scale = static_cast<int64_t>(argument(argc, argv, "scale", 1));
    check_rows(on);
    check_long_rows(on);
    check_norms(on);
    return report.finish();
  });
}
