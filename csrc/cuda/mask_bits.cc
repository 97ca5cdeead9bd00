#include "cuda/mask_bits.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "cuda/download.h"
#include "cuda/mask_bits_params.h"

namespace fovea::cuda {
namespace {

constexpr size_t kBlocksPerMultiprocessor = 8;
constexpr size_t kSharedBytes = 48 << 10;
constexpr size_t kFileBytes = 256 << 20;  // of all register files that shared memory does not hold
// With fewer bytes of matrices than this, all are fetched and compared on the host.
constexpr int64_t kFetchBytes = 1 << 19;

int64_t bytes_of(const MaskTable& t) { return t.length * (t.dtype == 2 ? 1 : 4); }

// A plan as the device reads it.
class DevicePlan {
 public:
  explicit DevicePlan(const ProgramPlan& plan) {
    for (int i = 0; i < plan.spread_count; i++) {
      const PlanSpread& s = plan.spreads[i];
      if (static_cast<size_t>(s.wide_slot) >= key_of_wide_.size()) key_of_wide_.resize(static_cast<size_t>(s.wide_slot) + 1);
      key_of_wide_[static_cast<size_t>(s.wide_slot)] = s.key_slot;
    }
    auto slots = [&](Space space) { return plan.slots[static_cast<int>(space)]; };
    queries_ = std::max(1, slots(Space::BatchHead));  // operands that are not there read word 0
    keys_ = queries_ + kMaskLanes * slots(Space::Query);
    pairs_ = keys_ + kMaskLanes * slots(Space::Key);
    words = pairs_ + kMaskLanes * kMaskRows * slots(Space::Both);
    for (int group = 0; group < 4; group++)
      for (int32_t i = plan.begin[group]; i < plan.begin[group + 1]; i++) {
        const PlanInstr& from = plan.code[i];
        MaskDeviceInstr to{from.op, from.immediate, place(from.a), place(from.b), place(from.c), place(from.out)};
        code.push_back(to);
        if (from.op == static_cast<int32_t>(MaskOp::LoadI) || from.op == static_cast<int32_t>(MaskOp::LoadF))
          table_count = std::max(table_count, from.immediate + 1);
      }
    result = place(plan.result);
  }

  std::vector<MaskDeviceInstr> code;
  MaskOperand result;
  int32_t words, table_count = 0;

 private:
  MaskOperand place(PlanRef ref) const {
    switch (ref.space) {
      case Space::BatchHead: return {MaskStep::Same, ref.slot};
      case Space::Query: return {MaskStep::PerLane, queries_ + kMaskLanes * ref.slot};
      case Space::Key: return {MaskStep::PerLane, keys_ + kMaskLanes * ref.slot};
      case Space::KeyWide: return {MaskStep::PerRow, keys_ + kMaskLanes * key_of_wide_[static_cast<size_t>(ref.slot)]};
      default: return {MaskStep::PerPair, pairs_ + kMaskLanes * kMaskRows * ref.slot};
    }
  }

  std::vector<int32_t> key_of_wide_;
  int32_t queries_, keys_, pairs_;
};

// Pieces of the host's memory, to be sent to the device in one copy.
class Parcel {
 public:
  template <class T>
  size_t add(const T* data, int64_t count) {
    const size_t at = (bytes_.size() + 15) / 16 * 16;
    bytes_.resize(at + static_cast<size_t>(count) * sizeof(T));
    if (count > 0) std::copy_n(reinterpret_cast<const char*>(data), static_cast<size_t>(count) * sizeof(T), bytes_.data() + at);
    return at;
  }
  template <class T>
  T* change(size_t at) {
    return reinterpret_cast<T*>(bytes_.data() + at);
  }
  size_t size() const { return bytes_.size(); }
  const char* data() const { return bytes_.data(); }

 private:
  std::vector<char> bytes_;
};

template <class T>
const T* at(const Scratch& scratch, size_t offset) {
  return reinterpret_cast<const T*>(scratch.data<char>() + offset);
}

// Numbers tiles by their hashes, in order of appearance; returns the first tile of each number.
std::vector<int32_t> number_by_hash(const MaskBitsParams& p, int64_t count, int32_t* ids) {
  std::unordered_map<uint64_t, int32_t> seen;
  std::vector<int32_t> first;
  for (int64_t i = 0; i < count; i++) {
    ids[i] = p.classes[i] == MaskTileClass::Full ? -1 : -2;
    if (p.classes[i] != MaskTileClass::Mixed) continue;
    const auto [known, fresh] = seen.emplace(p.hashes[i], static_cast<int32_t>(first.size()));
    if (fresh) first.push_back(static_cast<int32_t>(i));
    ids[i] = known->second;
  }
  return first;
}

// Fetches one matrix of each number; false when tiles of equal hashes differ.
bool fetch_distinct(const MaskBitsParams& p, const uint8_t* bits, int64_t count, const int32_t* ids, const std::vector<int32_t>& first,
                    Stream& stream) {
  Parcel lists;
  const size_t ids_at = lists.add(ids, count), first_at = lists.add(first.data(), static_cast<int64_t>(first.size()));
  const Scratch memory = stream.scratch(lists.size()), differs = stream.scratch(sizeof(int32_t));
  const size_t bytes = first.size() * static_cast<size_t>(p.tile_bytes());
  const Scratch distinct = stream.scratch(bytes);
  stream.upload(memory.data(), lists.data(), lists.size());
  stream.fill(differs.data(), 0, 4, 1);
  const MaskBitsDistinct k{bits,
                           count,
                           p.tile_bytes(),
                           at<int32_t>(memory, ids_at),
                           at<int32_t>(memory, first_at),
                           distinct.data<uint8_t>(),
                           differs.data<int32_t>()};
  stream.launch("mask_bits_distinct", {static_cast<unsigned>(count)}, {128}, 0, k);
  int32_t any = 0;
  download(stream, &any, differs.data(), sizeof any);
  if (any == 0) download(stream, p.bits, distinct.data(), bytes);
  return any == 0;
}

}  // namespace

const char* mask_bits_refusal(const ProgramPlan& plan) {
  for (int32_t i = plan.begin[0]; i < plan.begin[4]; i++) {
    const auto op = static_cast<MaskOp>(plan.code[i].op);
    if (op >= MaskOp::ExpF && op <= MaskOp::PowF) return "exp, log, tanh, sin, cos and pow may differ from the CPU's in the last bit";
  }
  return nullptr;
}

int64_t mask_bits(const MaskBitsParams& p, int64_t count, int32_t* ids, Stream& stream) {
  if (count == 0) return 0;
  const DevicePlan plan(*p.plan);
  Parcel parcel;
  const size_t code_at = parcel.add(plan.code.data(), static_cast<int64_t>(plan.code.size())), tiles_at = parcel.add(p.tiles, count);
  std::vector<size_t> table_at;
  for (int32_t i = 0; i < plan.table_count; i++)
    table_at.push_back(parcel.add(static_cast<const char*>(p.plan->tables[i].data), bytes_of(p.plan->tables[i])));
  const size_t tables_at = parcel.add(p.plan->tables, plan.table_count);
  const Scratch memory = stream.scratch(parcel.size());
  for (int32_t i = 0; i < plan.table_count; i++)
    parcel.change<MaskTable>(tables_at)[i].data = at<char>(memory, table_at[static_cast<size_t>(i)]);
  stream.upload(memory.data(), parcel.data(), parcel.size());

  const auto tiles = static_cast<size_t>(count), tile_bytes = static_cast<size_t>(p.tile_bytes());
  const Scratch bits = stream.scratch(tiles * tile_bytes), classes = stream.scratch(tiles),
                hashes = stream.scratch(tiles * sizeof(uint64_t));
  const size_t file_bytes = static_cast<size_t>(plan.words) * sizeof(int32_t) * kMaskWarps;
  const bool shared = file_bytes <= kSharedBytes;
  const size_t most = kBlocksPerMultiprocessor * static_cast<size_t>(stream.device().multiprocessors);
  const auto blocks = static_cast<unsigned>(std::min({tiles, most, shared ? most : std::max<size_t>(1, kFileBytes / file_bytes)}));
  const Scratch files = stream.scratch(shared ? 0 : file_bytes * blocks);
  MaskBitsKernel k{};
  k.params = p;
  k.params.plan = nullptr, k.params.tiles = at<MaskBitsTile>(memory, tiles_at);
  k.params.bits = bits.data<uint8_t>(), k.params.classes = classes.data<MaskTileClass>(), k.params.hashes = hashes.data<uint64_t>();
  k.count = count, k.code = at<MaskDeviceInstr>(memory, code_at), k.tables = at<MaskTable>(memory, tables_at);
  for (int i = 0; i < 5; i++) k.begin[i] = p.plan->begin[i] - p.plan->begin[0];
  k.result = plan.result, k.file_words = plan.words, k.files = shared ? nullptr : files.data<int32_t>();
  stream.launch(shared ? "mask_bits_shared" : "mask_bits_memory", {blocks}, {kMaskLanes, kMaskWarps}, shared ? file_bytes : 0, k);

  download(stream, p.classes, classes.data(), tiles);
  download(stream, p.hashes, hashes.data(), tiles * sizeof(uint64_t));
  const std::vector<int32_t> first = number_by_hash(p, count, ids);
  if (first.empty()) return 0;
  if (count * p.tile_bytes() > kFetchBytes && fetch_distinct(p, bits.data<uint8_t>(), count, ids, first, stream))
    return static_cast<int64_t>(first.size());
  download(stream, p.bits, bits.data(), tiles * tile_bytes);
  return -1;
}

}  // namespace fovea::cuda
