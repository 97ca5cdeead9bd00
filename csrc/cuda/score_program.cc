#include "cuda/score_program.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>

#include "core/error.h"
#include "cuda/score_math.h"

namespace fovea::cuda {
namespace {

enum class Type { Int, Float, Bool };

Type type_of(MaskOp op) {
  switch (op) {
    case MaskOp::EqI:
    case MaskOp::NeI:
    case MaskOp::LtI:
    case MaskOp::LeI:
    case MaskOp::EqF:
    case MaskOp::NeF:
    case MaskOp::LtF:
    case MaskOp::LeF:
    case MaskOp::AndB:
    case MaskOp::OrB:
    case MaskOp::NotB:
    case MaskOp::SelectB: return Type::Bool;
    case MaskOp::Batch:
    case MaskOp::Head:
    case MaskOp::Query:
    case MaskOp::Key:
    case MaskOp::ConstI:
    case MaskOp::UniformI:
    case MaskOp::LoadI:
    case MaskOp::SelectI:
    case MaskOp::FloatToInt:
    case MaskOp::BoolToInt: return Type::Int;
    default: return op >= MaskOp::AddI && op <= MaskOp::ShrU ? Type::Int : Type::Float;
  }
}

// The instruction that is the whole opcode; null where there is none. Operands are a, b, c as far as the opcode has them.
const char* mnemonic(MaskOp op) {
  switch (op) {
    case MaskOp::AddI: return "add.s32";
    case MaskOp::SubI: return "sub.s32";
    case MaskOp::MulI: return "mul.lo.s32";
    case MaskOp::NegI: return "neg.s32";
    case MaskOp::AbsI: return "abs.s32";
    case MaskOp::MinI: return "min.s32";
    case MaskOp::MaxI: return "max.s32";
    case MaskOp::AndI: return "and.b32";
    case MaskOp::OrI: return "or.b32";
    case MaskOp::XorI: return "xor.b32";
    case MaskOp::NotI: return "not.b32";
    case MaskOp::EqI: return "setp.eq.s32";
    case MaskOp::NeI: return "setp.ne.s32";
    case MaskOp::LtI: return "setp.lt.s32";
    case MaskOp::LeI: return "setp.le.s32";
    case MaskOp::AddF: return "add.f32";
    case MaskOp::SubF: return "sub.f32";
    case MaskOp::MulF: return "mul.f32";
    case MaskOp::NegF: return "neg.f32";
    case MaskOp::AbsF: return "abs.f32";
    case MaskOp::MinF: return "min.NaN.f32";
    case MaskOp::MaxF: return "max.NaN.f32";
    case MaskOp::FloorF: return "cvt.rmi.f32.f32";
    case MaskOp::CeilF: return "cvt.rpi.f32.f32";
    case MaskOp::TruncF: return "cvt.rzi.f32.f32";
    case MaskOp::EqF: return "setp.eq.f32";
    case MaskOp::NeF: return "setp.neu.f32";
    case MaskOp::LtF: return "setp.lt.f32";
    case MaskOp::LeF: return "setp.le.f32";
    case MaskOp::AndB: return "and.pred";
    case MaskOp::OrB: return "or.pred";
    case MaskOp::NotB: return "not.pred";
    case MaskOp::SelectI: return "selp.b32";
    case MaskOp::SelectF: return "selp.f32";
    case MaskOp::IntToFloat: return "cvt.rn.f32.s32";
    case MaskOp::FloatToInt: return "cvt.rzi.s32.f32";
    default: return nullptr;
  }
}

int operands_of(MaskOp op) {
  if (op <= MaskOp::UniformF) return 0;
  switch (op) {
    case MaskOp::NegI:
    case MaskOp::AbsI:
    case MaskOp::NotI:
    case MaskOp::NegF:
    case MaskOp::AbsF:
    case MaskOp::FloorF:
    case MaskOp::CeilF:
    case MaskOp::TruncF:
    case MaskOp::RoundF:
    case MaskOp::SqrtF:
    case MaskOp::ExpF:
    case MaskOp::LogF:
    case MaskOp::TanhF:
    case MaskOp::SinF:
    case MaskOp::CosF:
    case MaskOp::SignF:
    case MaskOp::NotB:
    case MaskOp::IntToFloat:
    case MaskOp::FloatToInt:
    case MaskOp::BoolToInt:
    case MaskOp::BoolToFloat:
    case MaskOp::LoadI:
    case MaskOp::LoadF: return 1;
    case MaskOp::SelectI:
    case MaskOp::SelectF:
    case MaskOp::SelectB: return 3;
    default: return 2;
  }
}

// Whether a rounding error of an operand can change the result by more than itself.
bool is_discrete(MaskOp op) {
  switch (op) {
    case MaskOp::FloorF:
    case MaskOp::CeilF:
    case MaskOp::TruncF:
    case MaskOp::RoundF:
    case MaskOp::RemF:
    case MaskOp::SignF:
    case MaskOp::EqF:
    case MaskOp::NeF:
    case MaskOp::LtF:
    case MaskOp::LeF:
    case MaskOp::FloatToInt: return true;
    default: return false;
  }
}

bool is_load(MaskOp op) { return op == MaskOp::LoadI || op == MaskOp::LoadF; }

std::string hex(uint32_t bits) {
  char text[16];
  std::snprintf(text, sizeof text, "0f%08X", bits);
  return text;
}

// Writes the instructions of one program.
class Writer {
 public:
  // `results`: the values whose instructions are wanted.
  Writer(const std::string& kernel, const MaskProgram& program, const char* prefix, size_t captures, std::initializer_list<int32_t> results)
      : program_(program),
        prefix_(prefix),
        parameter_("[" + kernel + "_param_0+"),
        captures_(captures),
        live_(static_cast<size_t>(program.size)),
        exact_(live_.size()) {
    for (int32_t value : results) live_[static_cast<size_t>(value)] = true;
    for (int32_t i = program.size - 1; i >= 0; i--) {
      const MaskInstr& instr = program.code[i];
      if (!live_[static_cast<size_t>(i)]) continue;
      for (int k = 0; k < operands_of(instr.op); k++) {
        const auto operand = static_cast<size_t>(operand_of(instr, k));
        live_[operand] = true;
        exact_[operand] = exact_[operand] || exact_[static_cast<size_t>(i)] || is_discrete(instr.op);
      }
    }
  }

  // Values that are computed once per tile: of the batch and head alone, and neither constants nor read from the parameter.
  bool hoisted(int32_t i) const {
    return i < program_.batch_head_end && live_[static_cast<size_t>(i)] && operands_of(program_.code[i].op) > 0;
  }

  std::string declare_hoisted() const {
    std::string text;
    for (int32_t i = 0; i < program_.size; i++)
      if (hoisted(i)) text += ".reg " + std::string(register_type(program_.code[i].op)) + " " + name(i) + ";\n";
    return text;
  }

  // Instructions of the hoisted values, or of all others, in a scope that stays open for the caller's.
  std::string open(bool hoist, const std::vector<std::string_view>& coordinates, std::string_view score, std::string_view upstream,
                   int site) {
    coordinates_ = &coordinates, score_ = score, upstream_ = upstream, site_ = site;
    out_ = "{\n.reg .b64 %table, %element;\n.reg .b32 %at, %last;\n";
    for (int32_t i = 0; i < program_.size; i++) {
      if (!live_[static_cast<size_t>(i)] || (hoist ? i >= program_.batch_head_end : hoisted(i))) continue;
      if (!is_input(program_.code[i].op) && !hoisted(i)) line(".reg " + std::string(register_type(program_.code[i].op)) + " " + name(i));
      write(i);
    }
    return out_;
  }

  // Puts the index of a load into %at, clamped into the table.
  std::string clamp(int32_t index, size_t table) const {
    return "ld.param.b32 %last, " + parameter(offsetof(ScoreCaptures, last) + 4 * table) + ";\nmax.s32 %at, " + name(index) +
           ", 0;\nmin.s32 %at, %at, %last;\n";
  }

  // The register of a value.
  std::string name(int32_t i) const {
    switch (program_.code[i].op) {
      case MaskOp::Score: return std::string(score_);
      case MaskOp::Upstream: return std::string(upstream_);
      case MaskOp::Batch:
      case MaskOp::Head:
      case MaskOp::Query:
      case MaskOp::Key: return std::string((*coordinates_)[static_cast<size_t>(program_.code[i].op)]);
      default: return prefix_ + std::to_string(i);
    }
  }

 private:
  static bool is_input(MaskOp op) { return op <= MaskOp::Upstream; }
  static int32_t operand_of(const MaskInstr& instr, int k) { return is_load(instr.op) || k == 1 ? instr.b : k == 0 ? instr.a : instr.c; }
  static const char* register_type(MaskOp op) {
    const Type type = type_of(op);
    return type == Type::Int ? ".b32" : type == Type::Float ? ".f32" : ".pred";
  }

  std::string parameter(size_t offset) const { return parameter_ + std::to_string(captures_ + offset) + "]"; }

  void write(int32_t i) {
    const MaskInstr& instr = program_.code[i];
    const bool exact = exact_[static_cast<size_t>(i)];
    if (is_input(instr.op)) return;
    if (instr.op == MaskOp::ConstI) return line("mov.b32 " + name(i) + ", " + std::to_string(instr.a));
    if (instr.op == MaskOp::ConstF) return line("mov.f32 " + name(i) + ", " + hex(static_cast<uint32_t>(instr.a)));
    if (instr.op == MaskOp::UniformI || instr.op == MaskOp::UniformF)
      return line(std::string(instr.op == MaskOp::UniformI ? "ld.param.b32 " : "ld.param.f32 ") + name(i) + ", " +
                  parameter(offsetof(ScoreCaptures, uniforms) + 4 * static_cast<size_t>(instr.a)));
    if (is_load(instr.op)) return load(i, instr);
    if (const char* text = score_math(instr.op, exact)) return expand(i, instr, text);
    std::string text = mnemonic(instr.op);
    const bool sum = instr.op == MaskOp::AddF || instr.op == MaskOp::SubF || instr.op == MaskOp::MulF;
    if (sum && exact) text.insert(3, ".rn");  // not to be fused
    text += " " + name(i);
    for (int k = 0; k < operands_of(instr.op); k++) text += ", " + name(operand_of(instr, k));
    line(text);
  }

  // Element of a table, the index clamped.
  void load(int32_t i, const MaskInstr& instr) {
    const auto table = static_cast<size_t>(instr.a);
    const MaskTable& info = program_.tables[table];
    if (info.length == 0)
      return line(std::string(info.dtype == 0 ? "mov.f32 " : "mov.b32 ") + name(i) + (info.dtype ? ", 0" : ", 0f00000000"));
    out_ += clamp(instr.b, table);
    line("ld.param.b64 %table, " + parameter(offsetof(ScoreCaptures, tables) + 8 * table));
    line("cvta.to.global.u64 %table, %table");
    line(info.dtype == 2 ? "cvt.u64.u32 %element, %at" : "mul.wide.u32 %element, %at, 4");
    line("add.s64 %table, %table, %element");
    line(std::string(info.dtype == 0   ? "ld.global.nc.f32 "
                     : info.dtype == 1 ? "ld.global.nc.b32 "
                                       : "ld.global.nc.u8 ") +
         name(i) + ", [%table]");
  }

  // A text of score_math with its places filled in.
  void expand(int32_t i, const MaskInstr& instr, const char* text) {
    for (const char* at = text; *at; at++) {
      if (*at != '$') {
        out_ += *at;
        continue;
      }
      at++;
      out_ += *at == 'd' ? name(i) : *at == 'n' ? std::to_string(site_) + "_" + std::to_string(i) : name(operand_of(instr, *at - 'a'));
    }
    out_ += '\n';
  }

  void line(const std::string& text) { (out_ += text) += ";\n"; }

  const MaskProgram& program_;
  const std::string prefix_, parameter_;
  const size_t captures_;
  std::vector<bool> live_, exact_;
  const std::vector<std::string_view>* coordinates_ = nullptr;
  std::string_view score_, upstream_;
  int site_ = 0;
  std::string out_;
};

// The structure of a program as bytes.
void append_key(std::string& key, const MaskProgram& p) {
  key.append(reinterpret_cast<const char*>(&p.size), sizeof p.size);
  key.append(reinterpret_cast<const char*>(p.code), static_cast<size_t>(p.size) * sizeof(MaskInstr));
  for (const int32_t n : {p.batch_head_end, p.result}) key.append(reinterpret_cast<const char*>(&n), sizeof n);
  for (int32_t i = 0; i < p.table_count; i++) key += static_cast<char>('0' + p.tables[i].dtype + (p.tables[i].length ? 0 : 4));
}

}  // namespace

ScoreSplice::ScoreSplice(const char* kernel, const MaskProgram& score, size_t captures, const MaskProgram* derivative, int32_t scatter)
    : kernel_(kernel), score_(score), captures_(captures), derivative_(derivative), scatter_(scatter) {}

std::string ScoreSplice::key() const {
  std::string key = "score";
  append_key(key, score_);
  if (!derivative_) return key;
  append_key(key += "derivative", *derivative_);
  if (scatter_ >= 0) key.append(reinterpret_cast<const char*>(derivative_->scatters + scatter_), sizeof(MaskScatter));
  return key;
}

std::string ScoreSplice::expand(std::string_view name, const std::vector<std::string_view>& operands) const {
  auto is = [&](std::string_view marker, size_t count) { return name == marker && operands.size() == count; };
  using Coordinates = std::vector<std::string_view>;
  Writer score(kernel_, score_, "%score", captures_, {score_.result});
  const int site = sites_++;
  if (is("score", 5)) {
    check(declared_, "ERR_INTERNAL", "a marker score before score_head");
    const Coordinates coordinates(operands.begin() + 1, operands.end());
    std::string text = score.open(false, coordinates, operands[0], "", site);
    return text + "mov.f32 " + std::string(operands[0]) + ", " + score.name(score_.result) + ";\n}\n";
  }
  const MaskProgram& program = derivative_ ? *derivative_ : score_;
  const MaskScatter scattered = derivative_ && scatter_ >= 0 ? program.scatters[scatter_] : MaskScatter{0, program.result, program.result};
  Writer gradient(kernel_, program, "%gradient", captures_, {scattered.index, scattered.grad});
  if (is("score_head", 2)) {
    std::string text;
    if (!declared_) text = score.declare_hoisted() + (derivative_ ? gradient.declare_hoisted() : "");
    declared_ = true;
    const Coordinates coordinates = {operands[0], operands[1], "", ""};
    text += score.open(true, coordinates, "", "", site) + "}\n";
    if (derivative_) text += gradient.open(true, coordinates, "", "", site) + "}\n";
    return text;
  }
  const bool scatter = is("scatter", 7);
  check(declared_ && derivative_ && (scatter ? scatter_ >= 0 : scatter_ < 0 && is("derivative", 6)), "ERR_INTERNAL", "a marker ",
        std::string(name), " with ", operands.size(), " operands in ", kernel_);
  const std::string upstream(operands[0]);
  std::string text = gradient.open(false, Coordinates(operands.end() - 4, operands.end()), operands[scatter ? 2 : 1], upstream, site);
  if (scatter)
    text += gradient.clamp(scattered.index, static_cast<size_t>(scattered.table)) + "mov.b32 " + std::string(operands[1]) + ", %at;\n";
  // What was masked stays 0, whatever its score.
  text += ".reg .pred %seen;\nsetp.neu.f32 %seen, " + upstream + ", 0f00000000;\n";
  return text + "selp.f32 " + upstream + ", " + gradient.name(scattered.grad) + ", 0f00000000, %seen;\n}\n";
}

ScoreCaptures score_captures(const MaskProgram& program) {
  ScoreCaptures captures{};
  for (int32_t i = 0; i < program.table_count; i++) {
    captures.tables[i] = program.tables[i].data;
    captures.last[i] = static_cast<int32_t>(std::min<int64_t>(program.tables[i].length, INT32_MAX)) - 1;
  }
  std::copy_n(program.uniforms, program.uniform_count, captures.uniforms);
  return captures;
}

const char* score_program_refusal(const MaskProgram& program) {
  if (program.table_count > kScoreTables || program.uniform_count > kScoreUniforms)
    return "the score program captures more than 16 tables or 64 numbers";
  if (program.size > kScoreProgramSize) return "the score program has more than 1024 instructions";
  return nullptr;
}

}  // namespace fovea::cuda
