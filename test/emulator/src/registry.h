// The table from a canonical opcode ("mad.lo.s32") to the handler that executes it. ops_*.cc fill it; they are compiled once per
// instruction set of the host and the table of the best one is used.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "lanes.h"

namespace fovea::emulator {

inline constexpr int kMaxKinds = 8;

struct OpEntry {
  Handler fn = nullptr;
  InstrClass cls = InstrClass::Integer;
  uint8_t count = 0;  // operands that `kinds` describes, destination first
  uint8_t destinations = 1;
  Kind kinds[kMaxKinds] = {};
};

class Registry {
 public:
  void add(const char* key, const OpEntry& entry);
  const OpEntry* find(std::string_view key) const;
  const std::map<std::string, OpEntry, std::less<>>& all() const { return table_; }

 private:
  std::map<std::string, OpEntry, std::less<>> table_;
};

const Registry& registry();

// A key put together from pieces without std::string: see csrc/core/isa.h for why these files avoid std templates.
class Key {
 public:
  template <class... Parts>
  explicit Key(const Parts&... parts) {
    (append(parts), ...);
    text_[length_] = '\0';
  }
  const char* c_str() const { return text_; }

 private:
  FOVEA_INLINE void append(const char* s) {
    while (*s && length_ < static_cast<int>(sizeof(text_)) - 1) text_[length_++] = *s++;
  }
  char text_[64];
  int length_ = 0;
};

}  // namespace fovea::emulator
