#include "cuda/score_program.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <optional>

#include "core/error.h"
#include "core/mask_operands.h"
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

// A program that stands in the kernel once. Sites put their operands into its registers, jump to it, and are jumped back to by their
// number.
class SharedBody {
 public:
  // `types` of the operands in their order; the first `results` of them are handed back.
  SharedBody(std::string name, const std::vector<const char*>& types, size_t results, int sites)
      : name_(std::move(name)), types_(types), results_(results), sites_(sites) {
    for (size_t i = 0; i < types_.size(); i++) registers_.push_back("%" + name_ + "_in" + std::to_string(i));
  }

  // The text of the next site; body(operands) makes the instructions.
  template <class Body>
  std::string next(const std::vector<std::string_view>& operands, Body&& body) {
    const std::string selector = "%" + name_ + "_site", targets = name_ + "_returns", start = name_ + "_body";
    std::string text;
    if (site_ == 0) {
      for (size_t i = 0; i < types_.size(); i++) text += std::string(".reg .") + types_[i] + " " + registers_[i] + ";\n";
      text += ".reg .b32 " + selector + ";\n";
    }
    for (size_t i = 0; i < types_.size(); i++) text += move(i, registers_[i], operands[i]);
    text += "mov.b32 " + selector + ", " + std::to_string(site_) + ";\n";
    if (site_ == 0) {
      text += targets + ": .branchtargets ";
      for (int i = 0; i < sites_; i++) text += (i ? ", " : "") + label(i);
      text += ";\n" + start + ":\n" + body(std::vector<std::string_view>(registers_.begin(), registers_.end()));
      text += "brx.idx " + selector + ", " + targets + ";\n";
    } else {
      text += "bra " + start + ";\n";
    }
    text += label(site_++) + ":\n";
    for (size_t i = 0; i < results_; i++) text += move(i, operands[i], registers_[i]);
    return text;
  }

 private:
  std::string label(int site) const { return name_ + "_return" + std::to_string(site); }
  std::string move(size_t i, std::string_view to, std::string_view from) const {
    return std::string("mov.") + types_[i] + " " + std::string(to) + ", " + std::string(from) + ";\n";
  }

  const std::string name_;
  const std::vector<const char*> types_;
  const size_t results_;
  const int sites_;
  std::vector<std::string> registers_;
  int site_ = 0;
};

}  // namespace

// The texts of one kernel's markers, in their order: registers of score_head are declared at its first.
class ScoreSplice::Expansion {
 public:
  Expansion(std::string_view module, const std::string& kernel, const MaskProgram& score, size_t captures, const MaskProgram* derivative,
            int32_t scatter)
      : kernel_(kernel),
        derivative_(derivative),
        scatters_(derivative && scatter >= 0),
        result_(score.result),
        scattered_(scatters_ ? derivative->scatters[scatter]
                             : MaskScatter{0, (derivative ? *derivative : score).result, (derivative ? *derivative : score).result}),
        score_(kernel, score, "%score", captures, {score.result}),
        gradient_(kernel, derivative ? *derivative : score, "%gradient", captures, {scattered_.index, scattered_.grad}) {
    if (score.size > kCopiedScoreProgram) shared_score_.emplace("score", kScoreOperands, 1, count_of(module, "score"));
    if (!derivative || derivative->size <= kCopiedScoreProgram) return;
    if (scatters_) shared_gradient_.emplace("gradient", kScatterOperands, 2, count_of(module, "scatter"));
    else shared_gradient_.emplace("gradient", kDerivativeOperands, 1, count_of(module, "derivative"));
  }

  std::string text(std::string_view name, const std::vector<std::string_view>& operands) {
    auto is = [&](std::string_view marker, size_t count) { return name == marker && operands.size() == count; };
    if (is("score_head", 2)) return head(operands);
    const bool score = is("score", 5), gradient = derivative_ && (scatters_ ? is("scatter", 7) : is("derivative", 6));
    check(declared_ && (score || gradient), "ERR_INTERNAL", "a marker ", std::string(name), " with ", operands.size(), " operands in ",
          kernel_);
    auto copy = [&](const Operands& at) { return score ? score_at(at) : gradient_at(at); };
    std::optional<SharedBody>& shared = score ? shared_score_ : shared_gradient_;
    return shared ? shared->next(operands, copy) : copy(operands);
  }

 private:
  using Operands = std::vector<std::string_view>;
  static inline const std::vector<const char*> kScoreOperands = {"f32", "b32", "b32", "b32", "b32"},
                                               kDerivativeOperands = {"f32", "f32", "b32", "b32", "b32", "b32"},
                                               kScatterOperands = {"f32", "b32", "f32", "b32", "b32", "b32", "b32"};

  // Markers of a name in the text that is being spliced.
  static int count_of(std::string_view module, const std::string& marker) {
    const std::string line = "//@" + marker + " ";
    int count = 0;
    for (size_t at = 0; (at = module.find(line, at)) != std::string_view::npos; at += line.size()) count++;
    return count;
  }

  std::string head(const Operands& operands) {
    std::string text;
    if (!declared_) text = score_.declare_hoisted() + (derivative_ ? gradient_.declare_hoisted() : "");
    declared_ = true;
    const Operands coordinates = {operands[0], operands[1], "", ""};
    const int site = sites_++;
    text += score_.open(true, coordinates, "", "", site) + "}\n";
    if (derivative_) text += gradient_.open(true, coordinates, "", "", site) + "}\n";
    return text;
  }

  std::string score_at(const Operands& operands) {
    const Operands coordinates(operands.begin() + 1, operands.end());
    std::string text = score_.open(false, coordinates, operands[0], "", sites_++);
    return text + "mov.f32 " + std::string(operands[0]) + ", " + score_.name(result_) + ";\n}\n";
  }

  std::string gradient_at(const Operands& operands) {
    const std::string upstream(operands[0]);
    const Operands coordinates(operands.end() - 4, operands.end());
    std::string text = gradient_.open(false, coordinates, operands[scatters_ ? 2 : 1], upstream, sites_++);
    if (scatters_)
      text += gradient_.clamp(scattered_.index, static_cast<size_t>(scattered_.table)) + "mov.b32 " + std::string(operands[1]) + ", %at;\n";
    // What was masked stays 0, whatever its score.
    text += ".reg .pred %seen;\nsetp.neu.f32 %seen, " + upstream + ", 0f00000000;\n";
    return text + "selp.f32 " + upstream + ", " + gradient_.name(scattered_.grad) + ", 0f00000000, %seen;\n}\n";
  }

  const std::string& kernel_;
  const MaskProgram* const derivative_;
  const bool scatters_;
  const int32_t result_;
  const MaskScatter scattered_;
  Writer score_, gradient_;
  std::optional<SharedBody> shared_score_, shared_gradient_;
  bool declared_ = false;
  int sites_ = 0;
};

ScoreSplice::ScoreSplice(const char* kernel, const MaskProgram& score, size_t captures, const MaskProgram* derivative, int32_t scatter)
    : kernel_(kernel), score_(score), captures_(captures), derivative_(derivative), scatter_(scatter) {}

ScoreSplice::~ScoreSplice() = default;

std::string ScoreSplice::key() const {
  std::string key = "score";
  append_key(key, score_);
  if (!derivative_) return key;
  append_key(key += "derivative", *derivative_);
  if (scatter_ >= 0) key.append(reinterpret_cast<const char*>(derivative_->scatters + scatter_), sizeof(MaskScatter));
  return key;
}

std::string ScoreSplice::expand(std::string_view module, std::string_view name, const std::vector<std::string_view>& operands) const {
  if (!expansion_) expansion_ = std::make_unique<Expansion>(module, kernel_, score_, captures_, derivative_, scatter_);
  return expansion_->text(name, operands);
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
  return nullptr;
}

}  // namespace fovea::cuda
