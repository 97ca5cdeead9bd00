// Bit matrices of mask tiles on a card against the CPU's interpreter, bit for bit.
//   mask_bits
#include "cpu/mask_bits.h"

#include "core/mask_program.h"
#include "cuda/mask_bits.h"
#include "mask_call.h"
#include "on_cpu.h"

using namespace fovea;
using namespace fovea::gpu;

namespace {

using enum MaskOp;

struct Program {
  std::vector<MaskInstr> code;
  int32_t batch_head_end = 0, query_end = 0, key_end = 0;
  std::vector<MaskTable> tables;
  MaskProgram view() const {
    const auto size = static_cast<int32_t>(code.size());
    return {code.data(), size, batch_head_end, query_end, key_end, size - 1, nullptr, 0, tables.data(), static_cast<int32_t>(tables.size()),
            nullptr,     0};
  }
};

// kv <= q
Program causal() { return {{{Query, 0, 0, 0}, {Key, 0, 0, 0}, {LeI, 1, 0, 0}}, 0, 1, 2, {}}; }

// document[q] === document[kv] && kv <= q
Program documents(const std::vector<int32_t>& document) {
  return {{{Query, 0, 0, 0}, {LoadI, 0, 0, 0}, {Key, 0, 0, 0}, {LoadI, 0, 2, 0}, {LeI, 2, 0, 0}, {EqI, 1, 3, 0}, {AndB, 4, 5, 0}},
          0,
          2,
          4,
          {{document.data(), static_cast<int64_t>(document.size()), 1}}};
}

// A polynomial of q and kv whose powers all live until the end: more values of a pair than shared memory has room for.
Program powers(int count) {
  Program p{{{Query, 0, 0, 0}, {Key, 0, 0, 0}, {AddI, 0, 1, 0}}, 0, 1, 2, {}};
  const auto add = [&](MaskOp op, int32_t a, int32_t b) {
    p.code.push_back({op, a, b, 0});
    return static_cast<int32_t>(p.code.size()) - 1;
  };
  const int32_t first = 2;
  int32_t last = first;
  for (int i = 1; i < count; i++) last = add(XorI, add(MulI, last, first), 0);
  int32_t sum = last;
  for (int32_t at = first; at < last; at++) sum = add(XorI, sum, at);
  add(LtI, sum, 1);
  return p;
}

void check(Gpu& gpu, Report& report, const char* name, const Program& program, int32_t block_q, int32_t block_kv, int64_t q, int64_t kv,
           bool diagonal) {
  const MaskProgram view = program.view();
  const ProgramPlan plan(view, ProgramPlan::Kind::Mask);
  MaskCall call(plan, block_q, block_kv, q, kv, diagonal), other(plan, block_q, block_kv, q, kv, diagonal);
  std::vector<uint8_t> scratch(cpu::mask_bits_scratch<Isa::Baseline>(other.params) + 64);
  void* aligned = scratch.data();
  size_t space = scratch.size();
  cpu::mask_bits<Isa::Baseline>(other.params, 0, other.count(), std::align(64, space - 64, aligned, space));
  gpu.run([&](cuda::Stream& stream) { call.evaluate(stream); });
  int64_t wrong = 0;
  for (int64_t i = 0; i < call.count(); i++) {
    const MaskTileClass want = other.classes[static_cast<size_t>(i)];
    const int32_t id = call.ids[static_cast<size_t>(i)];
    if ((id == -1) != (want == MaskTileClass::Full) || (id == -2) != (want == MaskTileClass::Empty)) wrong++;
    else if (id >= 0) wrong += std::memcmp(call.tile(i), other.tile(i), static_cast<size_t>(call.params.tile_bytes())) != 0;
  }
  report.add(name, static_cast<double>(wrong), 0, "tiles that differ of " + std::to_string(call.count()));
}

}  // namespace

int main() {
  return run_program([] {
    Gpu gpu;
    Report report("mask_bits");
    std::vector<int32_t> document(1000);
    for (size_t i = 0; i < document.size(); i++) document[i] = static_cast<int32_t>(i * i / 40000);
    check(gpu, report, "causal", causal(), 128, 128, 300, 500, false);
    check(gpu, report, "documents", documents(document), 48, 33, 1000, 700, false);
    check(gpu, report, "values beside shared memory", powers(40), 64, 32, 130, 90, false);
    check(gpu, report, "many equal tiles", causal(), 128, 128, 300 * 128, 300 * 128, true);
    return report.finish();
  });
}
