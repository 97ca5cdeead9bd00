// Elements become unsigned keys whose order is the wanted one (descending: the complement), paired with their index. Rows are sorted by a
// stable radix sort, one byte at a time, skipping bytes in which all keys agree; short rows by insertion.
//
// For small k the row is scanned once instead: the k best so far are kept in order, and a block of keys none of which beats the last of
// them is passed over with one vector comparison.
#include "cpu/sort.h"

#include "cpu/float_types.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileElements = 8192;
constexpr int64_t kInsertion = 48;
constexpr int64_t kSmallK = 64;
constexpr int kBlock = 64;

template <class Key>
struct Entry {
  Key key;
  int32_t index;
};

template <class T>
constexpr bool kWide = sizeof(T) == 8;
template <class T>
using KeyOf = std::conditional_t<kWide<T>, uint64_t, uint32_t>;

FOVEA_INLINE uint32_t key_of(float x) {
  if (x != x) return UINT32_MAX;
  uint32_t u = __builtin_bit_cast(uint32_t, x + 0.f);  // -0 becomes 0
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}
FOVEA_INLINE uint64_t key_of(double x) {
  if (x != x) return UINT64_MAX;
  uint64_t u = __builtin_bit_cast(uint64_t, x + 0.0);
  return u >> 63 ? ~u : u | uint64_t{1} << 63;
}
FOVEA_INLINE uint32_t key_of(bf16 x) { return key_of(to_float(x)); }
FOVEA_INLINE uint32_t key_of(f16 x) { return key_of(to_float(x)); }
FOVEA_INLINE uint32_t key_of(int32_t x) { return static_cast<uint32_t>(x) ^ 0x80000000u; }
FOVEA_INLINE uint64_t key_of(int64_t x) {
  return static_cast<uint64_t>(x) ^ uint64_t { 1 } << 63;
}
FOVEA_INLINE uint32_t key_of(uint8_t x) { return x; }

template <class Key>
void insertion_sort(Entry<Key>* entries, int64_t n) {
  for (int64_t i = 1; i < n; i++) {
    Entry<Key> e = entries[i];
    int64_t at = i;
    for (; at > 0 && e.key < entries[at - 1].key; at--) entries[at] = entries[at - 1];
    entries[at] = e;
  }
}

// Returns where the sorted entries are: `entries` or `other`.
template <class Key>
Entry<Key>* radix_sort(Entry<Key>* entries, Entry<Key>* other, int64_t n) {
  constexpr int kBytes = sizeof(Key);
  int64_t counts[kBytes][256] = {};
  for (int64_t i = 0; i < n; i++)
    for (int b = 0; b < kBytes; b++) counts[b][entries[i].key >> (8 * b) & 255]++;
  for (int b = 0; b < kBytes; b++) {
    if (counts[b][entries[0].key >> (8 * b) & 255] == n) continue;
    int64_t sum = 0;
    for (int64_t& count : counts[b]) {
      int64_t c = count;
      count = sum;
      sum += c;
    }
    for (int64_t i = 0; i < n; i++) other[counts[b][entries[i].key >> (8 * b) & 255]++] = entries[i];
    Entry<Key>* swap = entries;
    entries = other;
    other = swap;
  }
  return entries;
}

// The k smallest keys of a row, in order, into entries[0..k).
template <class T>
void select_row(const T* x, int64_t n, int64_t k, KeyOf<T> flip, Entry<KeyOf<T>>* entries) {
  using Key = KeyOf<T>;
  int64_t held = 0;
  Key keys[kBlock];
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int count = n - begin < kBlock ? static_cast<int>(n - begin) : kBlock;
    for (int i = 0; i < count; i++) keys[i] = key_of(x[begin + i]) ^ flip;
    if (held == k) {
      const Key last = entries[k - 1].key;
      int better = 0;
      for (int i = 0; i < count; i++) better |= keys[i] < last;
      if (!better) continue;
    }
    for (int i = 0; i < count; i++) {
      if (held == k && !(keys[i] < entries[k - 1].key)) continue;
      int64_t at = held == k ? k - 1 : held++;
      for (; at > 0 && keys[i] < entries[at - 1].key; at--) entries[at] = entries[at - 1];
      entries[at] = {keys[i], static_cast<int32_t>(begin + i)};
    }
  }
}

template <class T>
void sort_row(const SortParams& p, int64_t row, Entry<KeyOf<T>>* entries) {
  using Key = KeyOf<T>;
  const T* x = static_cast<const T*>(p.x) + row * p.n;
  const Key flip = p.descending ? static_cast<Key>(~Key{0}) : Key{0};
  if (p.k < p.n && p.k <= kSmallK) {
    select_row(x, p.n, p.k, flip, entries);
  } else {
    for (int64_t i = 0; i < p.n; i++) entries[i] = {static_cast<Key>(key_of(x[i]) ^ flip), static_cast<int32_t>(i)};
    if (p.n <= kInsertion) insertion_sort(entries, p.n);
    else entries = radix_sort(entries, entries + p.n, p.n);
  }
  T* values = static_cast<T*>(p.values) + row * p.k;
  int32_t* indices = p.indices + row * p.k;
  for (int64_t i = 0; i < p.k; i++) {
    indices[i] = entries[i].index;
    values[i] = x[entries[i].index];
  }
}

template <class T>
void sort_rows(const SortParams& p, ThreadPool& pool) {
  if (p.rows == 0 || p.k == 0) return;
  const int64_t step = p.n >= kTileElements ? 1 : kTileElements / p.n;
  pool.run((p.rows + step - 1) / step, [&](int64_t tile, int thread) {
    auto* entries = static_cast<Entry<KeyOf<T>>*>(pool.scratch(thread, 2 * p.n * sizeof(Entry<KeyOf<T>>)));
    for (int64_t row = tile * step; row < p.rows && row < (tile + 1) * step; row++) sort_row<T>(p, row, entries);
  });
}

}  // namespace

template <>
void sort<kIsa>(const SortParams& p, ThreadPool& pool) {
  switch (p.dtype) {
    case DType::F32: return sort_rows<float>(p, pool);
    case DType::BF16: return sort_rows<bf16>(p, pool);
    case DType::F16: return sort_rows<f16>(p, pool);
    case DType::F64: return sort_rows<double>(p, pool);
    case DType::I32: return sort_rows<int32_t>(p, pool);
    case DType::I64: return sort_rows<int64_t>(p, pool);
    default: return sort_rows<uint8_t>(p, pool);
  }
}

}  // namespace fovea::cpu
