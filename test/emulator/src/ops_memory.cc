// ld and st in all spaces, with vectors.
#include "access.h"
#include "map_lanes.h"
#include "ops.h"

namespace fovea::emulator::FOVEA_EMULATOR_ISA {

namespace {

template <class M, class R>
FOVEA_INLINE R widen(const u8* p) {
  M v;
  std::memcpy(&v, p, sizeof(M));
  if constexpr (std::is_signed_v<M>) return static_cast<R>(static_cast<std::make_signed_t<R>>(v));
  else return static_cast<R>(v);
}

template <class M, class R>
FOVEA_INLINE void load_lane(u8* regs, const Operand* ops, int count, int lane, const u8* p) {
  for (int v = 0; v < count; ++v) reinterpret_cast<R*>(regs + ops[v])[lane] = widen<M, R>(p + sizeof(M) * static_cast<u32>(v));
}

// ops: destinations, address
template <class M, class R>
void load(Warp& w, const Instr& i, u32 mask) {
  alignas(64) u64 address[kLanes];
  const int count = i.vector;
  const u32 bytes = static_cast<u32>(sizeof(M)) * static_cast<u32>(count);
  addresses_of(w, i, i.ops[count], address);
  count_access(w, i, mask, address, bytes, false);
  for (u32 left = mask; left; left &= left - 1) {
    const int l = __builtin_ctz(left);
    const u8* p = locate_load(w, i, l, address[l], bytes);
    if (count == 1) {
      reinterpret_cast<R*>(w.regs + i.ops[0])[l] = widen<M, R>(p);
    } else {
      load_lane<M, R>(w.regs, i.ops, count, l, p);
    }
  }
}

// ops: address, sources
template <class M, class R>
void store(Warp& w, const Instr& i, u32 mask) {
  alignas(64) u64 address[kLanes];
  const int count = i.vector;
  const u32 bytes = static_cast<u32>(sizeof(M)) * static_cast<u32>(count);
  addresses_of(w, i, i.ops[0], address);
  count_access(w, i, mask, address, bytes, true);
  const R* s[8];
  for (int v = 0; v < count; ++v) s[v] = w.src<R>(i.ops[1 + v]);
  for (u32 left = mask; left; left &= left - 1) {
    const int l = __builtin_ctz(left);
    u8* p = locate_store(w, i, l, address[l], bytes);
    for (int v = 0; v < count; ++v) {
      const M m = static_cast<M>(s[v][l]);
      std::memcpy(p + sizeof(M) * static_cast<u32>(v), &m, sizeof(M));
    }
  }
}

template <class M>
void add_loads(Registry& r) {
  constexpr Kind B = Kind::B32, L = Kind::B64;
  const char* m = name_of_type<M>();
  if constexpr (sizeof(M) < 8) r.add(Key("ld.", m, ".4").c_str(), {&load<M, u32>, InstrClass::Global, 1, 1, {B}});
  r.add(Key("ld.", m, ".8").c_str(), {&load<M, u64>, InstrClass::Global, 1, 1, {L}});
}

template <class M>
void add_stores(Registry& r) {
  constexpr Kind B = Kind::B32, L = Kind::B64;
  const char* m = name_of_type<M>();
  if constexpr (sizeof(M) < 8) r.add(Key("st.", m, ".4").c_str(), {&store<M, u32>, InstrClass::Global, 1, 0, {B}});
  r.add(Key("st.", m, ".8").c_str(), {&store<M, u64>, InstrClass::Global, 1, 0, {L}});
}

}  // namespace

void register_memory(Registry& r) {
  for_types(Types<u8, s8, u16, s16, u32, s32, u64>{}, [&]<class M>(M) { add_loads<M>(r); });
  for_types(Types<u8, u16, u32, u64>{}, [&]<class M>(M) { add_stores<M>(r); });
}

}  // namespace fovea::emulator::FOVEA_EMULATOR_ISA
