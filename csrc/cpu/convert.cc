// Copy with conversion as a pipeline of three small stages over pieces that fit the L1 cache: gather to contiguous, convert, scatter. A
// stage that has nothing to do is skipped, so a contiguous copy is memcpy and f32 to bf16 is one vector loop.
//
// Axes are first sorted by destination stride and merged where both sides allow. What remains is seen as planes of rows x columns: columns
// run along the destination's fastest axis, rows along the axis that is fastest in the source (a transpose) or else the next one. Planes
// are cut into blocks; a transposed block is turned through registers, 16 bytes square at a time, into a buffer first, because writing
// columns straight into a destination with a power-of-two pitch would evict its own cache lines.
#include "cpu/convert.h"

#include <cstring>
#include <type_traits>

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kPieceElements = 1024;  // of the gather and scatter buffers: 8 KB at most
constexpr int64_t kTileElements = 32768;  // of one unit of parallel work
constexpr int64_t kTransposeEdge = 64;

struct boolean {
  uint8_t value;
};

template <class T>
constexpr bool kIsHalf = std::is_same_v<T, bf16> || std::is_same_v<T, f16>;
template <class T>
constexpr bool kIsFloat = std::is_same_v<T, float> || std::is_same_v<T, double>;
template <class T>
constexpr int64_t kHighest = sizeof(T) == 8   ? INT64_MAX
                             : sizeof(T) == 4 ? INT32_MAX
                                              : 255;
template <class T>
constexpr int64_t kLowest = sizeof(T) == 8   ? INT64_MIN
                            : sizeof(T) == 4 ? INT32_MIN
                                             : 0;

// --- one element ---

template <class D, class S>
FOVEA_INLINE D cast(S x) {
  if constexpr (kIsFloat<D>) {
    return static_cast<D>(x);
  } else if constexpr (kIsFloat<S>) {
    constexpr S low = static_cast<S>(kLowest<D>), beyond = static_cast<S>(kHighest<D> / 2 + 1) * 2;
    S inside = x >= low && x < beyond ? x : S(0);
    return x >= beyond ? static_cast<D>(kHighest<D>) : x < low ? static_cast<D>(kLowest<D>) : static_cast<D>(inside);
  } else {
    int64_t wide = x;
    return static_cast<D>(wide > kHighest<D> ? kHighest<D> : wide < kLowest<D> ? kLowest<D> : wide);
  }
}

// --- contiguous conversion ---

template <class S, class D>
void convert(const void* src_bytes, void* dst_bytes, int64_t n) {
  const S* src = static_cast<const S*>(src_bytes);
  D* dst = static_cast<D*>(dst_bytes);
  if constexpr (std::is_same_v<S, D>) {
    std::memcpy(dst, src, n * sizeof(S));
  } else if constexpr (std::is_same_v<S, boolean>) {
    convert<uint8_t, D>(src, dst, n);
  } else if constexpr (std::is_same_v<D, boolean> && kIsHalf<S>) {
    for (int64_t i = 0; i < n; i++) dst[i].value = (src[i].bits & 0x7fff) != 0;
  } else if constexpr (std::is_same_v<D, boolean>) {
    for (int64_t i = 0; i < n; i++) dst[i].value = src[i] != S(0);
  } else if constexpr (kIsHalf<S> && std::is_same_v<D, float>) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(dst + i, load(src + i));
    for (; i < n; i++) dst[i] = to_float(src[i]);
  } else if constexpr (std::is_same_v<S, float> && kIsHalf<D>) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store_exact(dst + i, load(src + i));
    for (; i < n; i++) dst[i] = narrow<D>(src[i]);
  } else if constexpr (kIsHalf<S> || kIsHalf<D>) {
    float piece[256];
    for (int64_t i = 0; i < n; i += 256) {
      int64_t count = n - i < 256 ? n - i : 256;
      convert<S, float>(src + i, piece, count);
      convert<float, D>(piece, dst + i, count);
    }
  } else {
    for (int64_t i = 0; i < n; i++) dst[i] = cast<D>(src[i]);
  }
}

using Convert = void (*)(const void* src, void* dst, int64_t n);

template <class T>
struct Tag {
  using type = T;
};

template <class F>
auto with_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::F32: return f(Tag<float>{});
    case DType::BF16: return f(Tag<bf16>{});
    case DType::F16: return f(Tag<f16>{});
    case DType::F64: return f(Tag<double>{});
    case DType::I32: return f(Tag<int32_t>{});
    case DType::I64: return f(Tag<int64_t>{});
    case DType::U8: return f(Tag<uint8_t>{});
    default: return f(Tag<boolean>{});
  }
}

Convert converter(DType from, DType to) {
  return with_type(from, [&](auto s) {
    return with_type(to, [&](auto d) -> Convert { return convert<typename decltype(s)::type, typename decltype(d)::type>; });
  });
}

// --- moving elements of one size ---

template <class T>
void gather(const char* src, int64_t stride, char* dst, int64_t n) {
  const T* from = reinterpret_cast<const T*>(src);
  T* to = reinterpret_cast<T*>(dst);
  if (stride == 0) {
    const T x = *from;
    for (int64_t i = 0; i < n; i++) to[i] = x;
  } else {
    for (int64_t i = 0; i < n; i++) to[i] = from[i * stride];
  }
}

template <class T>
void scatter(const char* src, char* dst, int64_t stride, int64_t n) {
  const T* from = reinterpret_cast<const T*>(src);
  T* to = reinterpret_cast<T*>(dst);
  for (int64_t i = 0; i < n; i++) to[i * stride] = from[i];
}

// dst[j][i] = src[i][j] for one square of 16-byte rows.
template <class T>
FOVEA_INLINE void turn_square(const T* src, int64_t src_pitch, T* dst, int64_t dst_pitch) {
  constexpr int n = 16 / sizeof(T);
  typedef T row __attribute__((vector_size(16)));
  row r[n];
  FOVEA_UNROLL
  for (int i = 0; i < n; i++) std::memcpy(&r[i], src + i * src_pitch, 16);
  transpose_square(r);
  FOVEA_UNROLL
  for (int i = 0; i < n; i++) std::memcpy(dst + i * dst_pitch, &r[i], 16);
}

// dst[row * dst_pitch + column] = src[column * src_pitch + row]
template <class T>
void transpose(const char* src_bytes, int64_t src_pitch, char* dst_bytes, int64_t dst_pitch, int64_t rows, int64_t columns) {
  constexpr int n = 16 / sizeof(T);
  const T* src = reinterpret_cast<const T*>(src_bytes);
  T* dst = reinterpret_cast<T*>(dst_bytes);
  int64_t whole_rows = rows - rows % n, whole_columns = columns - columns % n;
  for (int64_t c = 0; c < whole_columns; c += n)
    for (int64_t r = 0; r < whole_rows; r += n) turn_square(src + c * src_pitch + r, src_pitch, dst + r * dst_pitch + c, dst_pitch);
  for (int64_t c = 0; c < columns; c++)
    for (int64_t r = c < whole_columns ? whole_rows : 0; r < rows; r++) dst[r * dst_pitch + c] = src[c * src_pitch + r];
}

struct Movers {
  void (*gather)(const char*, int64_t, char*, int64_t);
  void (*scatter)(const char*, char*, int64_t, int64_t);
  void (*transpose)(const char*, int64_t, char*, int64_t, int64_t, int64_t);
};

Movers movers(size_t bytes) {
  switch (bytes) {
    case 1: return {gather<uint8_t>, scatter<uint8_t>, transpose<uint8_t>};
    case 2: return {gather<uint16_t>, scatter<uint16_t>, transpose<uint16_t>};
    case 4: return {gather<uint32_t>, scatter<uint32_t>, transpose<uint32_t>};
    default: return {gather<uint64_t>, scatter<uint64_t>, transpose<uint64_t>};
  }
}

// --- the plan ---

struct Axis {
  int64_t size, src, dst;  // strides in bytes
};

int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

// Axes with equal stepping on both sides merged, slowest of the destination first; returns how many are left (0: one element).
int normalise(const CopyParams& p, Axis* axes) {
  const int64_t src_bytes = size_of(p.src_dtype), dst_bytes = size_of(p.dst_dtype);
  int rank = 0;
  for (int i = 0; i < p.rank; i++) {
    if (p.shape[i] == 1) continue;
    Axis axis{p.shape[i], p.src_strides[i] * src_bytes, p.dst_strides[i] * dst_bytes};
    int at = rank++;
    for (; at > 0 && magnitude(axes[at - 1].dst) < magnitude(axis.dst); at--) axes[at] = axes[at - 1];
    axes[at] = axis;
  }
  int kept = 0;
  for (int i = 0; i < rank; i++) {
    Axis* outer = kept ? &axes[kept - 1] : nullptr;
    if (outer && outer->src == axes[i].src * axes[i].size && outer->dst == axes[i].dst * axes[i].size)
      *outer = {outer->size * axes[i].size, axes[i].src, axes[i].dst};
    else axes[kept++] = axes[i];
  }
  return kept;
}

struct Plan {
  Axis outer[8];
  int outer_rank = 0;
  Axis row{1, 0, 0}, column{1, 0, 0};
  int64_t block_rows, block_columns, row_blocks, column_blocks;
  int64_t units, units_per_tile;  // a unit is one block of one plane
  bool transposed = false;
  int64_t src_bytes, dst_bytes;
  const char* src;
  char* dst;
  Convert convert;
  Movers from, to;
};

Plan make_plan(const CopyParams& p) {
  Plan plan;
  plan.src = static_cast<const char*>(p.src);
  plan.dst = static_cast<char*>(p.dst);
  plan.src_bytes = size_of(p.src_dtype);
  plan.dst_bytes = size_of(p.dst_dtype);
  plan.convert = converter(p.src_dtype, p.dst_dtype);
  plan.from = movers(plan.src_bytes);
  plan.to = movers(plan.dst_bytes);
  plan.column = {1, plan.src_bytes, plan.dst_bytes};
  Axis axes[8];
  int rank = normalise(p, axes);
  if (rank > 0) plan.column = axes[--rank];
  if (rank > 0) {
    int row = rank - 1;
    for (int i = 0; i < rank; i++)
      if (axes[i].src == plan.src_bytes && plan.column.src != 0 && plan.column.src != plan.src_bytes) row = i, plan.transposed = true;
    plan.row = axes[row];
    rank--;
    for (int i = row; i < rank; i++) axes[i] = axes[i + 1];
  }
  plan.outer_rank = rank;
  int64_t planes = 1;
  for (int i = 0; i < rank; i++) plan.outer[i] = axes[i], planes *= axes[i].size;
  const int64_t columns = plan.column.size, rows = plan.row.size;
  plan.block_columns = plan.transposed ? kTransposeEdge : kTileElements;
  if (plan.block_columns > columns) plan.block_columns = columns;
  plan.block_rows = plan.transposed ? kTransposeEdge : (kTileElements + plan.block_columns - 1) / plan.block_columns;
  if (plan.block_rows > rows) plan.block_rows = rows;
  plan.row_blocks = (rows + plan.block_rows - 1) / plan.block_rows;
  plan.column_blocks = (columns + plan.block_columns - 1) / plan.block_columns;
  plan.units = planes * plan.row_blocks * plan.column_blocks;
  plan.units_per_tile = kTileElements / (plan.block_rows * plan.block_columns);
  if (plan.units_per_tile < 1) plan.units_per_tile = 1;
  return plan;
}

// --- execution ---

void copy_row(const Plan& plan, const char* src, char* dst, int64_t n) {
  const bool packed_src = plan.column.src == plan.src_bytes, packed_dst = plan.column.dst == plan.dst_bytes;
  if (packed_src && packed_dst) return plan.convert(src, dst, n);
  alignas(64) char from[kPieceElements * 8], to[kPieceElements * 8];
  for (int64_t i = 0; i < n; i += kPieceElements) {
    const int64_t count = n - i < kPieceElements ? n - i : kPieceElements;
    const char* source = src + i * plan.column.src;
    char* target = dst + i * plan.column.dst;
    if (!packed_src) {
      plan.from.gather(source, plan.column.src / plan.src_bytes, from, count);
      source = from;
    }
    if (packed_dst) {
      plan.convert(source, target, count);
    } else {
      plan.convert(source, to, count);
      plan.to.scatter(to, target, plan.column.dst / plan.dst_bytes, count);
    }
  }
}

void copy_transposed(const Plan& plan, const char* src, char* dst, int64_t rows, int64_t columns) {
  alignas(64) char turned[kTransposeEdge * kTransposeEdge * 8], to[kTransposeEdge * 8];
  plan.from.transpose(src, plan.column.src / plan.src_bytes, turned, kTransposeEdge, rows, columns);
  for (int64_t r = 0; r < rows; r++) {
    const char* source = turned + r * kTransposeEdge * plan.src_bytes;
    char* target = dst + r * plan.row.dst;
    if (plan.column.dst == plan.dst_bytes) {
      plan.convert(source, target, columns);
    } else {
      plan.convert(source, to, columns);
      plan.to.scatter(to, target, plan.column.dst / plan.dst_bytes, columns);
    }
  }
}

void copy_unit(const Plan& plan, int64_t unit) {
  const int64_t column = unit % plan.column_blocks * plan.block_columns;
  unit /= plan.column_blocks;
  const int64_t row = unit % plan.row_blocks * plan.block_rows;
  unit /= plan.row_blocks;
  const char* src = plan.src + column * plan.column.src + row * plan.row.src;
  char* dst = plan.dst + column * plan.column.dst + row * plan.row.dst;
  for (int i = plan.outer_rank - 1; i >= 0; i--) {
    const int64_t index = unit % plan.outer[i].size;
    unit /= plan.outer[i].size;
    src += index * plan.outer[i].src;
    dst += index * plan.outer[i].dst;
  }
  int64_t columns = plan.column.size - column, rows = plan.row.size - row;
  if (columns > plan.block_columns) columns = plan.block_columns;
  if (rows > plan.block_rows) rows = plan.block_rows;
  if (plan.transposed) return copy_transposed(plan, src, dst, rows, columns);
  for (int64_t r = 0; r < rows; r++) copy_row(plan, src + r * plan.row.src, dst + r * plan.row.dst, columns);
}

}  // namespace

template <>
void convert_one<kIsa>(const void* from, DType from_dtype, void* to, DType to_dtype) {
  converter(from_dtype, to_dtype)(from, to, 1);
}

template <>
void copy<kIsa>(const CopyParams& p, ThreadPool& pool) {
  for (int i = 0; i < p.rank; i++)
    if (p.shape[i] == 0) return;
  const Plan plan = make_plan(p);
  const int64_t tiles = (plan.units + plan.units_per_tile - 1) / plan.units_per_tile;
  pool.run(tiles, [&](int64_t tile, int) {
    int64_t end = (tile + 1) * plan.units_per_tile;
    if (end > plan.units) end = plan.units;
    for (int64_t unit = tile * plan.units_per_tile; unit < end; unit++) copy_unit(plan, unit);
  });
}

}  // namespace fovea::cpu
