// How matrix products are computed on a large device: tiles, and runs of the inner axis.
#include <cstdio>
#include <cstring>

#include "cuda/matmul.h"

using namespace fovea;
using namespace fovea::cuda;

namespace {

int failures = 0;

DeviceInfo device_of(int multiprocessors, size_t shared_bytes) {
  DeviceInfo d{};
  d.multiprocessors = multiprocessors, d.shared_bytes_per_block = shared_bytes;
  return d;
}
const DeviceInfo kHopper = device_of(132, 227 << 10), kAda = device_of(128, 99 << 10);

MatmulPlan plan(const DeviceInfo& device, DType dtype, int64_t m, int64_t k, int64_t n) {
  MatmulParams p{};
  p.dtype = p.out_dtype = dtype, p.m = m, p.k = k, p.n = n;
  return plan_matmul(p, device);
}

void expect(const DeviceInfo& device, DType dtype, int64_t m, int64_t k, int64_t n, const char* tile, int chunks, bool split) {
  const MatmulPlan got = plan(device, dtype, m, k, n);
  const bool whole =
      k == 0 || (static_cast<int64_t>(got.chunk) * got.chunks >= k && static_cast<int64_t>(got.chunk) * (got.chunks - 1) < k);
  if (!std::strcmp(got.tile, tile) && got.chunks == chunks && got.split == split && whole && (chunks == 1 || got.chunk % 64 == 0)) return;
  std::printf("%s, %ld x %ld x %ld: got %s, %d runs of %d%s, expected %s, %d runs%s\n", name_of(dtype), m, k, n, got.tile, got.chunks,
              got.chunk, got.split ? ", split" : "", tile, chunks, split ? ", split" : "");
  failures++;
}

}  // namespace

int main() {
  constexpr DType kBf16 = DType::BF16, kF32 = DType::F32;
  expect(kHopper, kBf16, 4096, 4096, 4096, "128x256", 1, false);
  expect(kAda, kBf16, 4096, 4096, 4096, "128x128", 1, false);  // a block has less shared memory
  expect(kHopper, kBf16, 512, 4096, 4096, "128x128", 1, false);
  expect(kHopper, kBf16, 64, 4096, 4096, "64x64", 1, false);
  expect(kHopper, kBf16, 8, 4096, 4096, "16x32", 1, false);
  expect(kHopper, kBf16, 8, 14336, 4096, "16x32", 4, false);  // tiles enough
  expect(kHopper, kBf16, 8, 14336, 1024, "16x32", 4, true);
  expect(kHopper, kBf16, 128, 65536, 128, "64x64", 64, true);
  expect(kHopper, kBf16, 1024, 32768, 1024, "128x256", 8, true);
  expect(kHopper, kBf16, 8192, 14336, 4096, "128x256", 4, false);
  expect(kHopper, kF32, 4096, 4096, 4096, "128x128", 1, false);
  expect(kHopper, kF32, 1, 4096, 4096, "16x32", 1, false);
  expect(kHopper, kF32, 128, 65536, 128, "64x64", 64, true);
  expect(kHopper, kBf16, 3, 0, 5, "16x32", 1, false);
  // Runs are those of a row, however many there are.
  for (int64_t k : {1, 4096, 4097, 5000, 8192, 100000})
    for (int64_t n : {1, 64, 200, 520, 5000}) {
      const MatmulPlan one = plan(kHopper, kBf16, 1, k, n), many = plan(kAda, kBf16, 5000, k, n);
      if (one.chunks == many.chunks && one.chunk == many.chunk) continue;
      std::printf("k %ld, n %ld: %d runs of %d, for more rows %d of %d\n", k, n, one.chunks, one.chunk, many.chunks, many.chunk);
      failures++;
    }
  std::printf(failures ? "%d failed\n" : "matmul plans: ok\n", failures);
  return failures != 0;
}
