#include "core/op.h"

namespace fovea {

std::vector<OpEntry>& op_registry() {
  static auto* registry = new std::vector<OpEntry>;
  return *registry;
}

}  // namespace fovea
