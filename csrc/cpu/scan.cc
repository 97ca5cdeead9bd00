// One running total per row, in double precision (64-bit integers wrap around), rounded at each element. Rows that are neighbours in
// memory advance together, one line of columns at a time.
#include "cpu/scan.h"

#include "cpu/blocks.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileElements = 16384;
constexpr int64_t kColumns = 64;

// Stores a block of totals in the dtype of the output.
void store_totals(DType dtype, const double* totals, void* dst, int64_t n) {
  if (dtype == DType::F64) return store_block(dtype, totals, dst, n);
  float rounded[kBlock];
  for (int64_t i = 0; i < n; i++) rounded[i] = static_cast<float>(totals[i]);
  store_block(dtype, rounded, dst, n);
}

void store_totals(DType dtype, const uint64_t* totals, void* dst, int64_t n) { store_block(dtype, totals, dst, n); }

template <class Source, class Total>
class Scan {
 public:
  explicit Scan(const ScanParams& p) : p_(p) {}

  void run(ThreadPool& pool) const {
    const int64_t groups_per_slab = (p_.inner + kColumns - 1) / kColumns, groups = p_.outer * groups_per_slab;
    const int64_t cost = (p_.length + 8) * (p_.inner < kColumns ? p_.inner : kColumns);
    const int64_t per_tile = cost < kTileElements ? kTileElements / cost : 1, tiles = (groups + per_tile - 1) / per_tile;
    auto body = [&](int64_t tile, int) {
      const int64_t end = (tile + 1) * per_tile < groups ? (tile + 1) * per_tile : groups;
      for (int64_t g = tile * per_tile; g < end; g++) {
        if (p_.inner == 1) row(g);
        else columns(g / groups_per_slab, g % groups_per_slab * kColumns);
      }
    };
    if (tiles == 1) body(0, 0);
    else pool.run(tiles, body);
  }

 private:
  const char* source(int64_t i) const { return static_cast<const char*>(p_.in) + i * static_cast<int64_t>(size_of(p_.in_dtype)); }
  char* target(int64_t i) const { return static_cast<char*>(p_.out) + i * static_cast<int64_t>(size_of(p_.out_dtype)); }

  void row(int64_t r) const {
    Source block[kBlock];
    Total totals[kBlock], total = 0;
    const int64_t blocks = (p_.length + kBlock - 1) / kBlock;
    for (int64_t b = 0; b < blocks; b++) {
      const int64_t first = (p_.reverse ? blocks - 1 - b : b) * kBlock;
      const int64_t n = p_.length - first < kBlock ? p_.length - first : kBlock;
      load_block(p_.in_dtype, source(r * p_.length + first), 1, block, n);
      if (p_.reverse)
        for (int64_t i = n - 1; i >= 0; i--) totals[i] = total += static_cast<Total>(block[i]);
      else
        for (int64_t i = 0; i < n; i++) totals[i] = total += static_cast<Total>(block[i]);
      store_totals(p_.out_dtype, totals, target(r * p_.length + first), n);
    }
  }

  void columns(int64_t slab, int64_t first) const {
    const int64_t left = p_.inner - first, width = left < kColumns ? left : kColumns;
    Source line[kColumns];
    Total totals[kColumns] = {};
    for (int64_t k = 0; k < p_.length; k++) {
      const int64_t at = (slab * p_.length + (p_.reverse ? p_.length - 1 - k : k)) * p_.inner + first;
      load_block(p_.in_dtype, source(at), 1, line, width);
      for (int64_t c = 0; c < width; c++) totals[c] += static_cast<Total>(line[c]);
      store_totals(p_.out_dtype, totals, target(at), width);
    }
  }

  const ScanParams& p_;
};

}  // namespace

template <>
void cumsum<kIsa>(const ScanParams& p, ThreadPool& pool) {
  if (p.out_dtype == DType::I64) Scan<int64_t, uint64_t>(p).run(pool);
  else Scan<double, double>(p).run(pool);
}

}  // namespace fovea::cpu
