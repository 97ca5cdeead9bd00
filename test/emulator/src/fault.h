// An error a kernel made while running. The message names kernel, PTX line and text, block and thread.
#pragma once

#include <cstdint>
#include <exception>
#include <string>

namespace fovea::emulator {

struct Warp;
struct Instr;
struct Block;

enum class FaultKind { OutOfBounds, Misaligned, Uninitialized, Race, AsyncCopy, Barrier, Sync, Trap, Assert, Timeout, Lost };

class Fault : public std::exception {
 public:
  Fault(FaultKind kind, std::string message) : kind(kind), message(std::move(message)) {}
  const char* what() const noexcept override { return message.c_str(); }
  FaultKind kind;
  std::string message;
};

// lane < 0: the whole warp.
[[noreturn, gnu::cold, gnu::format(printf, 5, 6)]] void raise(FaultKind kind, const Warp& warp, const Instr& instr, int lane,
                                                              const char* format, ...);
[[noreturn, gnu::cold]] void raise_block(FaultKind kind, const Block& block, const std::string& message);

// " at line 12 (`bar.sync 0;`)" for messages that name a second place
std::string describe_line(const Block& block, uint32_t line);

}  // namespace fovea::emulator
