#include "fault.h"

#include <cstdarg>
#include <cstdio>

#include "machine.h"

namespace fovea::emulator {

namespace {

std::string trimmed(std::string_view s) {
  const size_t begin = s.find_first_not_of(" \t");
  return begin == std::string_view::npos ? "" : std::string(s.substr(begin, s.find_last_not_of(" \t\r") - begin + 1));
}

std::string triple(u32 x, u32 y, u32 z) { return "(" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + ")"; }

std::string name_of(FaultKind kind) {
  switch (kind) {
    case FaultKind::OutOfBounds: return "out of bounds";
    case FaultKind::Misaligned: return "misaligned access";
    case FaultKind::Uninitialized: return "uninitialised read";
    case FaultKind::Race: return "race";
    case FaultKind::AsyncCopy: return "asynchronous copy";
    case FaultKind::Barrier: return "barrier";
    case FaultKind::Sync: return "warp synchronisation";
    case FaultKind::Trap: return "trap";
    case FaultKind::Assert: return "assertion";
    case FaultKind::Timeout: return "timeout";
    case FaultKind::Lost: return "device lost";
  }
  return "fault";
}

std::string under(const Options& o) {
  const char* const orders[] = {"first", "last", "random"};
  return std::string(" [schedule ") + orders[static_cast<int>(o.warps)] + ", copies " + (o.async_early ? "early" : "late") + "]";
}

}  // namespace

void raise(FaultKind kind, const Warp& warp, const Instr& instr, int lane, const char* format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  const Block& b = *warp.block;
  std::string message = b.launch->program->name + ": " + name_of(kind) + describe_line(b, instr.line) + ", block " +
                        triple(b.ctaid[0], b.ctaid[1], b.ctaid[2]);
  if (lane >= 0) {
    const u32 t = static_cast<u32>(warp.index * kLanes + lane);
    const u32* n = b.launch->block;
    message += ", thread " + triple(t % n[0], t / n[0] % n[1], t / n[0] / n[1]);
  } else {
    message += ", warp " + std::to_string(warp.index);
  }
  throw Fault(kind, message + ": " + text + under(b.launch->options));
}

void raise_block(FaultKind kind, const Block& block, const std::string& message) {
  throw Fault(kind, block.launch->program->name + ": " + name_of(kind) + ", block " +
                        triple(block.ctaid[0], block.ctaid[1], block.ctaid[2]) + ": " + message + under(block.launch->options));
}

std::string describe_line(const Block& block, uint32_t line) {
  return " at ptx line " + std::to_string(line) + " `" + trimmed(block.launch->program->line_text(line)) + "`";
}

}  // namespace fovea::emulator
