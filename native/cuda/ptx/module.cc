#include "module.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <set>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace secateur::ptx {
namespace {

[[noreturn]] void fail(std::size_t line, const std::string& what) {
  throw std::runtime_error("PTX line " + std::to_string(line) + ": " + what);
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.remove_suffix(1);
  return text;
}

// Parts between separators that are not inside of braces or brackets.
std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  int depth = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{' || text[i] == '[') ++depth;
    if (text[i] == '}' || text[i] == ']') --depth;
    if (text[i] == separator && depth == 0) {
      parts.push_back(trim(text.substr(begin, i - begin)));
      begin = i + 1;
    }
  }
  if (!trim(text.substr(begin)).empty()) parts.push_back(trim(text.substr(begin)));
  return parts;
}

const std::map<std::string_view, Type> kTypes = {
    {"b8", {Kind::kBits, 1}},     {"b16", {Kind::kBits, 2}},     {"b32", {Kind::kBits, 4}},       {"b64", {Kind::kBits, 8}},
    {"u8", {Kind::kUnsigned, 1}}, {"u16", {Kind::kUnsigned, 2}}, {"u32", {Kind::kUnsigned, 4}},   {"u64", {Kind::kUnsigned, 8}},
    {"s8", {Kind::kSigned, 1}},   {"s16", {Kind::kSigned, 2}},   {"s32", {Kind::kSigned, 4}},     {"s64", {Kind::kSigned, 8}},
    {"f32", {Kind::kFloat, 4}},   {"f64", {Kind::kFloat, 8}},    {"pred", {Kind::kPredicate, 1}},
};

const std::map<std::string_view, Special> kSpecials = {
    {"%tid.x", Special::kThreadX},     {"%tid.y", Special::kThreadY},  {"%tid.z", Special::kThreadZ},     {"%ctaid.x", Special::kBlockX},
    {"%ctaid.y", Special::kBlockY},    {"%ctaid.z", Special::kBlockZ}, {"%ntid.x", Special::kBlockSizeX}, {"%ntid.y", Special::kBlockSizeY},
    {"%ntid.z", Special::kBlockSizeZ}, {"%nctaid.x", Special::kGridX}, {"%nctaid.y", Special::kGridY},    {"%nctaid.z", Special::kGridZ},
    {"%laneid", Special::kLane},
};

// How an instruction may be written: its opcode and the modifiers that mean nothing new here, or choose a mode.
struct Form {
  Opcode opcode;
  std::set<std::string_view> accepted;
  std::map<std::string_view, Mode> modes;
};

const std::map<std::string_view, Mode> kComparisons = {
    {"eq", Mode::kEqual},      {"ne", Mode::kNotEqual},        {"lt", Mode::kLess},          {"le", Mode::kLessEqual},
    {"gt", Mode::kGreater},    {"ge", Mode::kGreaterEqual},    {"equ", Mode::kEqualOrNan},   {"neu", Mode::kNotEqualOrNan},
    {"ltu", Mode::kLessOrNan}, {"leu", Mode::kLessEqualOrNan}, {"gtu", Mode::kGreaterOrNan}, {"geu", Mode::kGreaterEqualOrNan},
};

// By the name with the modifiers that are part of it.
const std::map<std::string_view, Form> kForms = {
    {"abs", {Opcode::kAbs, {}, {}}},
    {"add", {Opcode::kAdd, {"rn"}, {}}},
    {"and", {Opcode::kAnd, {}, {}}},
    {"atom", {Opcode::kAtom, {"shared", "global"}, {{"add", Mode::kAtomicAdd}, {"or", Mode::kAtomicOr}}}},
    {"bar.sync", {Opcode::kBar, {}, {}}},
    {"bar.warp.sync", {Opcode::kWarpBarrier, {}, {}}},
    {"bfi", {Opcode::kBfi, {}, {}}},
    {"bfind.shiftamt", {Opcode::kBfind, {}, {}}},
    {"bra", {Opcode::kBra, {"uni"}, {}}},
    {"brev", {Opcode::kBrev, {}, {}}},
    {"clz", {Opcode::kClz, {}, {}}},
    {"cp.async.cg.shared.global", {Opcode::kCopyAsync, {}, {}}},
    {"cp.async.commit_group", {Opcode::kCommitCopies, {}, {}}},
    {"cp.async.wait_group", {Opcode::kWaitCopies, {}, {}}},
    {"cvt", {Opcode::kCvt, {"rn"}, {{"sat", Mode::kSaturate}, {"rmi", Mode::kRoundDown}, {"rzi", Mode::kRoundToZero}}}},
    {"cvt.rn.bf16x2", {Opcode::kNarrowPairBF16, {}, {}}},
    {"cvt.rn.f16x2", {Opcode::kNarrowPairF16, {}, {}}},
    {"cvta.to.global", {Opcode::kCvta, {}, {}}},
    {"div", {Opcode::kDiv, {"rn"}, {}}},
    {"ex2.approx", {Opcode::kEx2, {}, {{"ftz", Mode::kFlushed}}}},
    {"exit", {Opcode::kExit, {}, {}}},
    {"fma", {Opcode::kFma, {"rn"}, {{"rm", Mode::kRoundDown}}}},
    {"ld", {Opcode::kLd, {"param", "global", "shared", "v2", "v4"}, {}}},
    {"ldmatrix.sync.aligned.m8n8.x4", {Opcode::kLdmatrix, {"shared"}, {{"trans", Mode::kTransposed}}}},
    {"mad", {Opcode::kMad, {}, {{"lo", Mode::kLow}}}},
    {"match.any.sync", {Opcode::kMatch, {}, {}}},
    {"max", {Opcode::kMax, {}, {}}},
    {"min", {Opcode::kMin, {}, {}}},
    {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", {Opcode::kMmaBF16, {}, {}}},
    {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", {Opcode::kMmaF16, {}, {}}},
    {"mov", {Opcode::kMov, {}, {}}},
    {"mul", {Opcode::kMul, {"rn"}, {{"lo", Mode::kLow}, {"hi", Mode::kHigh}, {"wide", Mode::kWide}}}},
    {"neg", {Opcode::kNeg, {}, {}}},
    {"not", {Opcode::kNot, {}, {}}},
    {"or", {Opcode::kOr, {}, {}}},
    {"popc", {Opcode::kPopc, {}, {}}},
    {"prmt", {Opcode::kPrmt, {}, {}}},
    {"rcp", {Opcode::kRcp, {"rn", "ftz"}, {{"approx", Mode::kApproximate}}}},
    {"rem", {Opcode::kRem, {}, {}}},
    {"ret", {Opcode::kExit, {}, {}}},
    {"selp", {Opcode::kSelp, {}, {}}},
    {"setp", {Opcode::kSetp, {}, kComparisons}},
    {"shfl.sync", {Opcode::kShfl, {}, {{"up", Mode::kUp}, {"down", Mode::kDown}, {"bfly", Mode::kButterfly}, {"idx", Mode::kIndex}}}},
    {"shl", {Opcode::kShl, {}, {}}},
    {"shr", {Opcode::kShr, {}, {}}},
    {"sqrt", {Opcode::kSqrt, {"rn"}, {}}},
    {"st", {Opcode::kSt, {"global", "shared", "cg", "v2", "v4"}, {}}},
    {"sub", {Opcode::kSub, {"rn"}, {}}},
    {"vote.sync", {Opcode::kVote, {}, {{"ballot", Mode::kBallot}, {"any", Mode::kAny}, {"all", Mode::kAll}}}},
    {"xor", {Opcode::kXor, {}, {}}},
};

// The form whose name is the longest beginning of `name`.
const Form* find_form(std::string_view& name, std::string_view& modifiers) {
  for (std::string_view head = name;; head = head.substr(0, head.rfind('.'))) {
    if (const auto found = kForms.find(head); found != kForms.end()) {
      modifiers = name.substr(head.size());
      return &found->second;
    }
    if (head.find('.') == std::string_view::npos) return nullptr;
  }
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::vector<Kernel> parse() {
    std::string statement;
    while (next_line()) {
      const std::size_t comment = current_.find("//");
      const std::string_view code = current_.substr(0, comment);
      if (!inside_ && !in_head_) {
        parse_module_line(trim(code));
        continue;
      }
      if (in_head_) {
        parse_head_line(trim(code));
        continue;
      }
      for (const char letter : code) {
        const bool blank = trim(statement).empty();
        if (letter == ';') {
          parse_statement(trim(statement));
          statement.clear();
        } else if (letter == ':' && trim(statement).starts_with('$')) {
          labels_[std::string(trim(statement))] = kernel().code.size();
          statement.clear();
        } else if (letter == '{' && blank) {
          ++scopes_;
        } else if (letter == '}' && blank) {
          if (--scopes_ == 0) finish_kernel();
        } else {
          statement += letter;
        }
      }
      statement += ' ';
    }
    if (inside_) fail(line_, "the text ends inside of a kernel");
    return std::move(kernels_);
  }

 private:
  Kernel& kernel() { return kernels_.back(); }

  bool next_line() {
    if (position_ >= text_.size()) return false;
    const std::size_t end = std::min(text_.find('\n', position_), text_.size());
    current_ = text_.substr(position_, end - position_);
    position_ = end + 1;
    ++line_;
    return true;
  }

  void parse_module_line(std::string_view code) {
    constexpr std::string_view kEntry = ".entry ";
    if (const std::size_t entry = code.find(kEntry); entry != std::string_view::npos) {
      const std::string_view name = trim(code.substr(entry + kEntry.size()));
      kernels_.push_back({.name = std::string(trim(name.substr(0, name.find('(')))), .parameters = {}, .code = {}});
      in_head_ = true;
      return;
    }
    // Its size is the launch's; the bytes of the static variables come first.
    if (code.starts_with(".extern .shared")) {
      dynamic_shared_.insert(variable_name(code));
      return;
    }
    const bool known = code.empty() || code.starts_with(".version") || code.starts_with(".target") || code.starts_with(".address_size");
    if (!known) fail(line_, "not supported outside of kernels: " + std::string(code));
  }

  static std::string variable_name(std::string_view declaration) {
    const std::string_view name = declaration.substr(declaration.find_last_of(" \t") + 1);
    return std::string(name.substr(0, name.find_first_of("[,;")));
  }

  // .param .u64 name   or   .param .align 8 .b8 name[56]
  void parse_head_line(std::string_view code) {
    if (code.starts_with(".param")) {
      if (code.ends_with(',')) code.remove_suffix(1);
      const auto [bytes, alignment] = extent_of(code);
      std::size_t& end = kernel().parameter_bytes;
      end = (end + alignment - 1) / alignment * alignment;
      parameters_[variable_name(code)] = end;
      kernel().parameters.push_back({.offset = end, .bytes = bytes});
      end += bytes;
    } else if (code == "{") {
      in_head_ = false;
      inside_ = true;
      scopes_ = 1;
    } else if (!(code == ")" || code.empty() || code.starts_with(".maxntid") || code.starts_with(".minnctapersm"))) {
      fail(line_, "not supported before a kernel's code: " + std::string(code));
    }
  }

  // Bytes and alignment of a declared variable.
  std::pair<std::size_t, std::size_t> extent_of(std::string_view declaration) {
    std::size_t bytes = 0;
    std::size_t alignment = 0;
    const std::vector<std::string_view> words = split(declaration, ' ');
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (words[i] == ".align") alignment = static_cast<std::size_t>(number(words.at(i + 1)));
      if (words[i].starts_with('.') && kTypes.contains(words[i].substr(1))) bytes = kTypes.at(words[i].substr(1)).bytes;
    }
    if (bytes == 0) fail(line_, "no size in " + std::string(declaration));
    if (alignment == 0) alignment = bytes;
    if (const std::size_t bracket = declaration.find('['); bracket != std::string_view::npos) {
      bytes *= static_cast<std::size_t>(number(declaration.substr(bracket + 1, declaration.find(']') - bracket - 1)));
    }
    return {bytes, alignment};
  }

  void parse_statement(std::string_view statement) {
    if (statement.starts_with(".reg") || statement.starts_with(".pragma")) return;
    if (statement.starts_with(".shared")) {
      const auto [bytes, alignment] = extent_of(statement);
      std::size_t& end = kernel().shared_bytes;
      end = (end + alignment - 1) / alignment * alignment;
      shared_[variable_name(statement)] = end;
      end += bytes;
      return;
    }
    if (statement.starts_with('.')) fail(line_, "not supported: " + std::string(statement));
    Instruction instruction;
    instruction.line = line_;
    if (statement.starts_with('@')) {
      const std::size_t end = statement.find_first_of(" \t");
      std::string_view guard = statement.substr(1, end - 1);
      instruction.guard_negated = guard.starts_with('!');
      if (instruction.guard_negated) guard.remove_prefix(1);
      instruction.guard = register_of(guard);
      statement = trim(statement.substr(end));
    }
    const std::size_t end = std::min(statement.find_first_of(" \t"), statement.size());
    parse_name(statement.substr(0, end), instruction);
    const std::string_view rest = trim(statement.substr(end));
    if (instruction.opcode == Opcode::kBra) {
      branches_.emplace_back(kernel().code.size(), std::string(rest));
    } else {
      for (const std::string_view operand : split(rest, ',')) instruction.operands.push_back(parse_operand(operand));
    }
    kernel().code.push_back(std::move(instruction));
  }

  void parse_name(std::string_view name, Instruction& instruction) {
    std::string_view modifiers;
    const Form* const form = find_form(name, modifiers);
    if (form == nullptr) fail(line_, "unknown instruction " + std::string(name));
    instruction.opcode = form->opcode;
    bool typed = false;
    for (const std::string_view modifier : split(modifiers, '.')) {
      if (modifier.empty()) continue;
      if (const auto type = kTypes.find(modifier); type != kTypes.end()) {
        (typed ? instruction.source_type : instruction.type) = type->second;
        typed = true;
      } else if (const auto mode = form->modes.find(modifier); mode != form->modes.end()) {
        instruction.mode = mode->second;
      } else if (!form->accepted.contains(modifier)) {
        fail(line_, "unknown modifier ." + std::string(modifier) + " of " + std::string(name));
      }
      if (modifier == "shared") instruction.space = Space::kShared;
      if (modifier == "param") instruction.space = Space::kParameter;
    }
  }

  Operand parse_operand(std::string_view text) {
    if (text.starts_with('[')) return parse_address(trim(text.substr(1, text.size() - 2)));
    if (text.starts_with('{')) return parse_list(text.substr(1, text.size() - 2), ',');
    if (text.find('|') != std::string_view::npos) return parse_list(text, '|');
    if (const auto special = kSpecials.find(text); special != kSpecials.end()) {
      Operand operand;
      operand.form = Operand::Form::kSpecial;
      operand.special = special->second;
      return operand;
    }
    Operand operand;
    if (text.starts_with('%') || text.starts_with('!')) {
      operand.form = Operand::Form::kRegister;
      operand.negated = text.starts_with('!');
      operand.reg = register_of(operand.negated ? text.substr(1) : text);
      return operand;
    }
    operand.immediate = address_of(text, true);
    return operand;
  }

  Operand parse_list(std::string_view text, char separator) {
    Operand operand;
    operand.form = Operand::Form::kList;
    for (const std::string_view item : split(text, separator)) operand.items.push_back(parse_operand(item));
    return operand;
  }

  // [%rd1], [%rd1+4], [%r1+-4], [name], [name+8]
  Operand parse_address(std::string_view text) {
    Operand operand;
    operand.form = Operand::Form::kAddress;
    const std::size_t plus = text.find('+');
    const std::string_view base = trim(text.substr(0, plus));
    if (plus != std::string_view::npos) operand.immediate = number(trim(text.substr(plus + 1)));
    if (base.starts_with('%')) {
      operand.reg = register_of(base);
    } else {
      operand.immediate += address_of(base, false);
    }
    return operand;
  }

  // A variable's address, or a number where those are allowed.
  std::uint64_t address_of(std::string_view text, bool numbers) {
    const std::string name(text);
    if (const auto found = parameters_.find(name); found != parameters_.end()) return found->second;
    if (const auto found = shared_.find(name); found != shared_.end()) return found->second;
    // All static variables are declared before the code.
    if (dynamic_shared_.contains(name)) return (kernel().shared_bytes + 15) / 16 * 16;
    if (numbers) return number(text);
    fail(line_, "unknown variable " + name);
  }

  // Decimal, 0x…, or the bits of a float32 (0f…) or float64 (0d…).
  std::uint64_t number(std::string_view text) {
    const bool negative = text.starts_with('-');
    std::string_view digits = negative ? text.substr(1) : text;
    const bool hexadecimal = digits.size() > 2 && digits[0] == '0' && (digits[1] == 'f' || digits[1] == 'd' || digits[1] == 'x');
    if (hexadecimal) digits.remove_prefix(2);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, hexadecimal ? 16 : 10);
    if (error != std::errc() || end != digits.data() + digits.size()) fail(line_, "not a number: " + std::string(text));
    return negative ? 0 - value : value;
  }

  std::uint32_t register_of(std::string_view name) {
    if (!name.starts_with('%')) fail(line_, "not a register: " + std::string(name));
    return registers_.try_emplace(std::string(name), static_cast<std::uint32_t>(registers_.size())).first->second;
  }

  void finish_kernel() {
    for (const auto& [place, label] : branches_) {
      const auto found = labels_.find(label);
      if (found == labels_.end()) fail(kernel().code[place].line, "unknown label " + label);
      kernel().code[place].target = found->second;
    }
    kernel().registers = registers_.size();
    inside_ = false;
    parameters_.clear();
    shared_.clear();
    registers_.clear();
    labels_.clear();
    branches_.clear();
  }

  std::string_view text_;
  std::size_t position_ = 0;
  std::string_view current_;
  std::size_t line_ = 0;
  std::vector<Kernel> kernels_;
  bool in_head_ = false;
  bool inside_ = false;
  int scopes_ = 0;
  std::set<std::string> dynamic_shared_;
  std::map<std::string, std::size_t> parameters_;
  std::map<std::string, std::size_t> shared_;
  std::map<std::string, std::uint32_t> registers_;
  std::map<std::string, std::size_t> labels_;
  std::vector<std::pair<std::size_t, std::string>> branches_;
};

}  // namespace

std::vector<Kernel> parse_module(const std::string& text) { return Parser(text).parse(); }

}  // namespace secateur::ptx
