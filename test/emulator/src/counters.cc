#include "counters.h"

#include <algorithm>
#include <array>

namespace fovea::emulator {

const char* name_of(InstrClass cls) {
  static constexpr const char* names[kInstrClasses] = {"integer", "float", "half",   "convert", "move",   "compare",    "control", "global",
                                                       "shared",  "local", "atomic", "async",   "matrix", "collective", "barrier"};
  return names[static_cast<int>(cls)];
}

void ProfileCounters::count_shared(MemoryCounters& to, uint32_t mask, const uint32_t* address, uint32_t bytes) {
  const int group = bytes >= 16 ? 8 : bytes == 8 ? 16 : 32;  // lanes that one pass can serve
  for (int first = 0; first < 32; first += group) {
    std::array<uint32_t, 128> words;
    int count = 0;
    for (int l = first; l < first + group; ++l) {
      if (!(mask >> l & 1)) continue;
      for (uint32_t w = address[l] / 4; w <= (address[l] + bytes - 1) / 4; ++w) words[count++] = w;
    }
    if (!count) continue;
    std::sort(words.begin(), words.begin() + count);
    const int distinct = static_cast<int>(std::unique(words.begin(), words.begin() + count) - words.begin());
    std::array<uint8_t, 32> load{};
    for (int k = 0; k < distinct; ++k) ++load[words[k] % 32];
    to.wavefronts += *std::max_element(load.begin(), load.end());
    to.ideal += (distinct + 31) / 32;
  }
  ++to.requests;
  to.bytes += static_cast<uint64_t>(__builtin_popcount(mask)) * bytes;
}

void ProfileCounters::count_global(MemoryCounters& to, uint32_t mask, const uint64_t* address, uint32_t bytes) {
  std::array<uint64_t, 64> sectors;
  int count = 0;
  for (int l = 0; l < 32; ++l) {
    if (!(mask >> l & 1)) continue;
    sectors[count++] = address[l] / 32;
    if ((address[l] + bytes - 1) / 32 != address[l] / 32) sectors[count++] = (address[l] + bytes - 1) / 32;
  }
  std::sort(sectors.begin(), sectors.begin() + count);
  to.sectors += static_cast<uint64_t>(std::unique(sectors.begin(), sectors.begin() + count) - sectors.begin());
  ++to.requests;
  to.bytes += static_cast<uint64_t>(__builtin_popcount(mask)) * bytes;
}

namespace {

void add(MemoryCounters& to, const MemoryCounters& from) {
  to.requests += from.requests;
  to.wavefronts += from.wavefronts;
  to.ideal += from.ideal;
  to.sectors += from.sectors;
  to.bytes += from.bytes;
}

std::string number(const char* name, uint64_t value) { return std::string("\"") + name + "\": " + std::to_string(value); }

std::string shared_json(const char* name, const MemoryCounters& c) {
  return std::string("\"") + name + "\": {" + number("requests", c.requests) + ", " + number("wavefronts", c.wavefronts) + ", " +
         number("conflicts", c.wavefronts - c.ideal) + ", " + number("bytes", c.bytes) + "}";
}

std::string global_json(const char* name, const MemoryCounters& c) {
  return std::string("\"") + name + "\": {" + number("requests", c.requests) + ", " + number("sectors", c.sectors) + ", " +
         number("bytes", c.bytes) + "}";
}

}  // namespace

void KernelCounters::add(const Program& program, const ProfileCounters& block) {
  const std::lock_guard lock(mutex);
  for (size_t k = 0; k < program.code.size(); ++k) {
    by_class[static_cast<int>(program.code[k].cls)] += block.executed[k];
    warp_instructions += block.executed[k];
    lane_instructions += block.lanes[k];
  }
  emulator::add(shared_loads, block.shared_loads);
  emulator::add(shared_stores, block.shared_stores);
  emulator::add(global_loads, block.global_loads);
  emulator::add(global_stores, block.global_stores);
}

std::string to_json(const std::map<std::string, KernelCounters*>& kernels) {
  std::string out = "{";
  for (const auto& [name, k] : kernels) {
    const std::lock_guard lock(k->mutex);
    out += (out.size() > 1 ? ",\n  \"" : "\n  \"") + name + "\": {" + number("launches", k->launches) + ", " + number("blocks", k->blocks) +
           ", " + number("warpInstructions", k->warp_instructions) + ", " + number("laneInstructions", k->lane_instructions) +
           ",\n    \"classes\": {";
    for (int c = 0; c < kInstrClasses; ++c) out += (c ? ", " : "") + number(name_of(static_cast<InstrClass>(c)), k->by_class[c]);
    out += "},\n    " + shared_json("sharedLoads", k->shared_loads) + ", " + shared_json("sharedStores", k->shared_stores) + ",\n    " +
           global_json("globalLoads", k->global_loads) + ", " + global_json("globalStores", k->global_stores) + "}";
  }
  return out + "\n}\n";
}

}  // namespace fovea::emulator
