// Evaluates the mixed tiles of a mask at build time: maskBits(program, uniforms, tables, tableInfo, blocks, tiles, ids, bits,
// device) -> count.
//
//   program    flat program of lib/mask (encodeProgram)
//   uniforms   bits of the captured numbers
//   tables     the captured tables one after the other, each starting at a multiple of 4 bytes
//   tableInfo  per table: dtype (0 f32, 1 i32, 2 u8), byte offset, length
//   blocks     [block_q, block_kv, q_length, kv_length]
//   tiles      4 x i32 each: batch, head, query block, key block
//   ids        out, one i32 per tile: -1 full, -2 empty, else which of the distinct bit matrices
//   bits       out, room for as many matrices as there are tiles; the first `count` are written
//   device     code of the device to evaluate on. One that can't give the CPU's bits leaves the work to the CPU.
//
// Synchronous, on the caller's thread where that is at most a few milliseconds of work, since the thread pool may be busy with a kernel. On
// a device it waits for the evaluation alone.
#include <algorithm>
#include <cstring>
#include <future>
#include <memory>
#include <unordered_map>
#include <vector>

#include "core/call_memory.h"
#include "core/error.h"
#include "core/op.h"
#include "core/thread_pool.h"
#include "cpu/mask_bits.h"
#include "cuda/device.h"
#include "cuda/mask_bits.h"

namespace fovea {
namespace {

constexpr int32_t kProgramMagic = 0x464d5031;
constexpr int64_t kTilesAlone = 2048, kTilesPerTask = 32;

struct BoundProgram {
  MaskProgram program{};
  std::vector<MaskTable> tables;
};

BoundProgram bind(const Bytes& flat, const Bytes& uniforms, const Bytes& tables, const std::vector<int64_t>& info) {
  BoundProgram bound;
  const int32_t* words = flat.as<int32_t>();
  size_t count = flat.size / 4;
  check(count >= 7 && words[0] == kProgramMagic, "ERR_ARGUMENT", "maskBits: not an encoded mask program");
  MaskProgram& p = bound.program;
  p.size = words[1];
  check(p.size > 0 && p.size <= kMaskProgramMaxSize && count >= 7 + 4 * static_cast<size_t>(p.size), "ERR_ARGUMENT",
        "maskBits: program of ", count, " words with size ", p.size);
  p.batch_head_end = words[2];
  p.query_end = words[3];
  p.key_end = words[4];
  p.result = words[5];
  static_assert(sizeof(MaskInstr) == 16);
  p.code = reinterpret_cast<const MaskInstr*>(words + 7);
  p.uniforms = uniforms.as<int32_t>();
  p.uniform_count = static_cast<int32_t>(uniforms.size / 4);
  check(info.size() % 3 == 0, "ERR_ARGUMENT", "maskBits: table info of ", info.size(), " numbers");
  for (size_t i = 0; i < info.size(); i += 3) {
    int64_t dtype = info[i], offset = info[i + 1], length = info[i + 2];
    int64_t bytes = length * (dtype == 2 ? 1 : 4);
    check(dtype >= 0 && dtype <= 2 && offset >= 0 && offset % 4 == 0 && length >= 0 && offset + bytes <= static_cast<int64_t>(tables.size),
          "ERR_ARGUMENT", "maskBits: table ", i / 3, " lies outside its memory");
    bound.tables.push_back({tables.as<char>() + offset, length, static_cast<int32_t>(dtype)});
  }
  p.tables = bound.tables.data();
  p.table_count = static_cast<int32_t>(bound.tables.size());
  return bound;
}

// With memory of its own: the scratch of the pool's threads belongs to the kernel that the stream runs meanwhile.
void evaluate(const MaskBitsParams& params, int64_t count) {
  dispatch_isa([&](auto isa) {
    const auto scratch = static_cast<int64_t>(cpu::mask_bits_scratch<isa()>(params));
    const auto run = [&](int64_t first, int64_t last) {
      const CallMemory memory(scratch);
      cpu::mask_bits<isa()>(params, first, last, memory.data);
    };
    if (count <= kTilesAlone) return run(0, count);
    ThreadPool::instance().run((count + kTilesPerTask - 1) / kTilesPerTask,
                               [&](int64_t task, int) { run(task * kTilesPerTask, std::min(count, (task + 1) * kTilesPerTask)); });
  });
}

// cuda::mask_bits on the thread of the device's queue, waited for: it itself, not what the device has to do besides.
int64_t evaluate_on(Device device, const MaskBitsParams& params, int64_t count, int32_t* ids) {
  cuda::Device& target = cuda::Device::get(device.ordinal);
  std::promise<int64_t> distinct;
  target.stream().post("maskBits", target.lanes().aside(), {}, {}, [&](const TaskContext&) {
    try {
      cuda::Stream stream = target.launcher();
      distinct.set_value(cuda::mask_bits(params, count, ids, stream));
    } catch (...) {
      distinct.set_exception(std::current_exception());
    }
  });
  return distinct.get_future().get();
}

// Moves the distinct matrices to the front and numbers them in order of appearance.
int64_t deduplicate(const MaskBitsParams& params, int64_t count, int32_t* ids) {
  std::unordered_multimap<uint64_t, int32_t> seen;
  int64_t distinct = 0, bytes = params.tile_bytes();
  for (int64_t i = 0; i < count; i++) {
    if (params.classes[i] != MaskTileClass::Mixed) {
      ids[i] = params.classes[i] == MaskTileClass::Full ? -1 : -2;
      continue;
    }
    const uint8_t* tile = params.bits + i * bytes;
    int32_t id = -1;
    auto [at, end] = seen.equal_range(params.hashes[i]);
    for (; at != end && id < 0; ++at)
      if (std::memcmp(params.bits + at->second * bytes, tile, static_cast<size_t>(bytes)) == 0) id = at->second;
    if (id < 0) {
      id = static_cast<int32_t>(distinct++);
      if (id != i) std::memcpy(params.bits + id * bytes, tile, static_cast<size_t>(bytes));
      seen.emplace(params.hashes[i], id);
    }
    ids[i] = id;
  }
  return distinct;
}

int64_t mask_bits(const Bytes& program, const Bytes& uniforms, const Bytes& tables, const std::vector<int64_t>& table_info,
                  const std::vector<int64_t>& blocks, const Bytes& tiles, const Bytes& ids, const Bytes& bits, int64_t device_code) {
  check(blocks.size() == 4, "ERR_ARGUMENT", "maskBits: blocks wants [block_q, block_kv, q_length, kv_length]");
  BoundProgram bound = bind(program, uniforms, tables, table_info);
  ProgramPlan plan(bound.program, ProgramPlan::Kind::Mask);
  int64_t count = static_cast<int64_t>(tiles.size / sizeof(MaskBitsTile));
  MaskBitsParams params{};
  params.plan = &plan;
  params.block_q = static_cast<int32_t>(blocks[0]);
  params.block_kv = static_cast<int32_t>(blocks[1]);
  params.q_length = blocks[2];
  params.kv_length = blocks[3];
  check(params.block_q > 0 && params.block_q % 16 == 0 && params.block_q <= 4096 && params.block_kv > 0 && params.block_kv <= 65536,
        "ERR_ARGUMENT", "maskBits: blocks of ", params.block_q, " x ", params.block_kv);
  check(ids.size >= static_cast<size_t>(count) * 4 && bits.size >= static_cast<size_t>(count * params.tile_bytes()), "ERR_ARGUMENT",
        "maskBits: outputs too small for ", count, " tiles");
  params.tiles = tiles.as<MaskBitsTile>();
  for (int64_t i = 0; i < count; i++) {
    const MaskBitsTile& t = params.tiles[i];
    check(t.q_block >= 0 && t.kv_block >= 0 && static_cast<int64_t>(t.q_block) * params.block_q < params.q_length &&
              static_cast<int64_t>(t.kv_block) * params.block_kv < params.kv_length,
          "ERR_ARGUMENT", "maskBits: tile (", t.q_block, ", ", t.kv_block, ") lies outside the lengths");
  }
  params.bits = static_cast<uint8_t*>(const_cast<void*>(bits.data));
  std::vector<MaskTileClass> classes(static_cast<size_t>(count));
  std::vector<uint64_t> hashes(static_cast<size_t>(count));
  params.classes = classes.data();
  params.hashes = hashes.data();
  int32_t* const id_of = static_cast<int32_t*>(const_cast<void*>(ids.data));
  const Device device = Device::from_code(device_code);
  if (device.is_cpu() || cuda::mask_bits_refusal(plan)) evaluate(params, count);
  else if (const int64_t distinct = evaluate_on(device, params, count, id_of); distinct >= 0) return distinct;
  return deduplicate(params, count, id_of);
}

const RegisterOp<&mask_bits> mask_bits_registration{"maskBits"};

}  // namespace
}  // namespace fovea
