#include "access.h"

namespace fovea::emulator {

namespace {

const char* name_of(Space space) {
  switch (space) {
    case Space::Shared: return "shared";
    case Space::Local: return "local";
    case Space::Param: return "parameter";
    case Space::Const: return "constant";
    default: return "global";
  }
}

}  // namespace

void raise_access(Warp& w, const Instr& i, int lane, Space space, u64 address, u32 bytes, bool write) {
  const char* verb = write ? "writing" : "reading";
  const char* where = name_of(space);
  const Launch& launch = *w.block->launch;
  if (address & (bytes - 1)) {
    raise(FaultKind::Misaligned, w, i, lane, "%s %u bytes at %s address 0x%llx, which is not a multiple of %u", verb, bytes, where,
          static_cast<unsigned long long>(address), bytes);
  }
  const auto out_of = [&](u64 size) {
    if (address + bytes <= size) return;
    raise(FaultKind::OutOfBounds, w, i, lane, "%s %u bytes at %s address %lld of %llu", verb, bytes, where, static_cast<long long>(address),
          static_cast<unsigned long long>(size));
  };
  if (space == Space::Shared) {
    out_of(w.block->shared.bytes());
    const std::string why = w.block->shared.explain(w.shared, static_cast<u32>(address), bytes);
    const FaultKind kind = why.find("nobody has written") != std::string::npos ? FaultKind::Uninitialized
                           : why.find("cp.async") != std::string::npos         ? FaultKind::AsyncCopy
                                                                               : FaultKind::Race;
    raise(kind, w, i, lane, "%s %u bytes at shared address %llu, %s", verb, bytes, static_cast<unsigned long long>(address), why.c_str());
  }
  if (space == Space::Local) {
    out_of(w.program->local_bytes);
    raise(FaultKind::Uninitialized, w, i, lane, "%s %u bytes of local memory at %llu that were never written", verb, bytes,
          static_cast<unsigned long long>(address));
  }
  if (space == Space::Param) {
    out_of(launch.params.size());
    raise(FaultKind::OutOfBounds, w, i, lane, "%s kernel parameters", verb);
  }
  u64 bad = address;
  while (bad < address + bytes - 1 && launch.memory->state_at(bad) >= (write ? DeviceMemory::kAllocated : DeviceMemory::kWritten)) ++bad;
  const bool never_written = !write && launch.memory->state_at(bad) == DeviceMemory::kAllocated;
  raise(never_written ? FaultKind::Uninitialized : FaultKind::OutOfBounds, w, i, lane, "%s %u bytes at %s address 0x%llx: %s%s", verb,
        bytes, where, static_cast<unsigned long long>(address), launch.memory->describe(bad).c_str(),
        never_written ? ", never written" : "");
}

}  // namespace fovea::emulator
