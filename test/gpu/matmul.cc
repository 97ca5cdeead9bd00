// Matrix products on a card against plain double-precision loops: random sizes, layouts, batches, biases and activations, each dtype.
//   matmul [--cases=60] [--seed=1]
#include "cuda/matmul.h"

#include "twin.h"

using namespace fovea;
using namespace fovea::gpu;

namespace {

std::mt19937_64 engine;
int64_t uniform(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine); }
bool chance(double p) { return std::uniform_real_distribution<>(0, 1)(engine) < p; }

// An operand [batch, rows, columns]: dense, transposed or with padded rows; one for all batches at times.
struct Matrix {
  DType dtype;
  std::vector<uint8_t> bytes;
  MatmulOperand view;

  Matrix(DType type, int64_t batch, int64_t rows, int64_t columns, bool plain) : dtype(type) {
    const int64_t pad = !plain && chance(0.3) ? uniform(1, 9) : 0;
    if (!plain && chance(0.4)) view.row = 1, view.column = rows + pad;
    else view.row = columns + pad, view.column = 1;
    const int64_t one = std::max(rows * view.row, columns * view.column);
    const bool shared = !plain && chance(0.3);
    view.batch[0] = shared ? 0 : one;
    bytes.assign(static_cast<size_t>(one * (shared ? 1 : batch)) * size_of(type), 0xff);
    if (plain) return;
    std::normal_distribution<double> normal;
    for (int64_t b = 0; b < (shared ? 1 : batch); b++)
      for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) set_element(dtype, bytes.data(), at(b, i, j), normal(engine));
  }
  size_t at(int64_t b, int64_t i, int64_t j) const { return static_cast<size_t>(b * view.batch[0] + i * view.row + j * view.column); }
  double get(int64_t b, int64_t i, int64_t j) const { return element(dtype, bytes.data(), at(b, i, j)); }
};

double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::Relu: return x > 0 ? x : 0;
    case Activation::Gelu: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::GeluTanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::Silu: return x / (1 + std::exp(-x));
    default: return x;
  }
}

void check_case(Gpu& gpu, uint64_t seed, Report& report) {
  engine.seed(seed);
  constexpr DType dtypes[] = {DType::F32, DType::BF16, DType::F16};
  MatmulParams p{};
  p.dtype = dtypes[seed % 3], p.out_dtype = chance(0.3) ? DType::F32 : p.dtype;
  const int64_t batch = uniform(1, 3);
  const bool aligned = chance(0.5);  // the shapes of the fast path
  p.m = aligned ? 64 * uniform(1, 4) : uniform(1, 200), p.n = aligned ? 64 * uniform(1, 4) : uniform(1, 200);
  p.k = aligned ? 32 * uniform(1, 8) : uniform(1, 300);
  p.batch_rank = 1, p.batch_shape[0] = batch;
  const Matrix a(p.dtype, batch, p.m, p.k, false), b(p.dtype, batch, p.k, p.n, false), bias(p.dtype, 1, 1, p.n, false);
  Matrix out(p.out_dtype, batch, p.m, p.n, true);
  p.activation = static_cast<Activation>(uniform(0, 4));
  DeviceArrays arrays(gpu);
  p.a = a.view, p.b = b.view, p.out = out.view;
  p.a.data = arrays.copy(a.bytes), p.b.data = arrays.copy(b.bytes), p.out.data = arrays.copy(out.bytes);
  const bool biased = chance(0.5);
  if (biased) p.bias = bias.view, p.bias.row = 0, p.bias.batch[0] = 0, p.bias.data = arrays.copy(bias.bytes);
  const DeviceArray result(gpu, out.bytes.data(), out.bytes.size());
  p.out.data = result.data();
  gpu.run([&](cuda::Stream& stream) { cuda::matmul(p, stream); });
  result.download(out.bytes.data());

  double worst = 0, scale = 0;
  for (int64_t s = 0; s < batch; s++)
    for (int64_t i = 0; i < p.m; i++)
      for (int64_t j = 0; j < p.n; j++) {
        double sum = biased ? bias.get(0, 0, j) : 0;
        for (int64_t l = 0; l < p.k; l++) sum += a.get(s, i, l) * b.get(s, l, j);
        const double want = activated(p.activation, sum), difference = std::fabs(out.get(s, i, j) - want);
        scale = std::max(scale, std::fabs(want));
        worst = std::max(worst, std::isfinite(difference) ? difference : INFINITY);
      }
  char what[160];
  std::snprintf(what, sizeof what, "seed %lu: batch %ld, %ld x %ld x %ld, strides a %ld %ld, b %ld %ld%s", seed, batch, p.m, p.n, p.k,
                p.a.row, p.a.column, p.b.row, p.b.column, biased ? ", bias" : "");
  report.add(std::string(name_of(p.dtype)) + " to " + name_of(p.out_dtype), worst == 0 ? 0 : worst / scale, tolerance_of(p.dtype), what);
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Gpu gpu;
    Report report("matmul");
    const int cases = static_cast<int>(argument(argc, argv, "cases", 60));
    const auto seed = static_cast<uint64_t>(argument(argc, argv, "seed", 1));
    for (int i = 0; i < cases; i++) check_case(gpu, seed + static_cast<uint64_t>(i), report);
    return report.finish();
  });
}
