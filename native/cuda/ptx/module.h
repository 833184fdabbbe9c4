// The PTX that nvcc writes, parsed: kernels as lists of instructions. Takes the part of the language that our kernels use and throws at
// anything else, naming the line. PTX ISA: https://docs.nvidia.com/cuda/parallel-thread-execution/
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace secateur::ptx {

enum class Opcode {
  kAbs,
  kAdd,
  kAnd,
  kAtom,
  kBar,
  kBfi,
  kBfind,
  kBra,
  kBrev,
  kClz,
  kCommitCopies,
  kCopyAsync,
  kCvt,
  kCvta,
  kDiv,
  kEx2,
  kExit,
  kFma,
  kLd,
  kLdmatrix,
  kMad,
  kMatch,
  kMax,
  kMin,
  kMmaBF16,
  kMmaF16,
  kMov,
  kMul,
  kNarrowPairBF16,
  kNarrowPairF16,
  kNeg,
  kNot,
  kOr,
  kPopc,
  kPrmt,
  kRcp,
  kRem,
  kSelp,
  kSetp,
  kShfl,
  kShl,
  kShr,
  kSqrt,
  kSt,
  kSub,
  kVote,
  kWaitCopies,
  kWarpBarrier,
  kXor,
};

enum class Kind : std::uint8_t { kBits, kUnsigned, kSigned, kFloat, kPredicate };

struct Type {
  Kind kind = Kind::kBits;
  unsigned bytes = 0;
};

enum class Space : std::uint8_t { kGlobal, kShared, kParameter };

// What an instruction's modifiers choose, where its opcode has a choice.
enum class Mode : std::uint8_t {
  kNone,
  kLow,
  kHigh,
  kWide,
  kRoundDown,
  kRoundToZero,
  kSaturate,
  kApproximate,
  kFlushed,
  kShiftAmount,
  kTransposed,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kEqualOrNan,
  kNotEqualOrNan,
  kLessOrNan,
  kLessEqualOrNan,
  kGreaterOrNan,
  kGreaterEqualOrNan,
  kUp,
  kDown,
  kButterfly,
  kIndex,
  kBallot,
  kAny,
  kAll,
  kAtomicAdd,
  kAtomicOr,
};

// Values that a thread finds in special registers.
enum class Special : std::uint8_t {
  kThreadX,
  kThreadY,
  kThreadZ,
  kBlockX,
  kBlockY,
  kBlockZ,
  kBlockSizeX,
  kBlockSizeY,
  kBlockSizeZ,
  kGridX,
  kGridY,
  kGridZ,
  kLane
};

struct Operand {
  enum class Form : std::uint8_t { kRegister, kImmediate, kSpecial, kAddress, kList };
  Form form = Form::kImmediate;
  // Of kRegister and kAddress; an address has none (kNoRegister) when it is that of a variable.
  std::uint32_t reg = kNoRegister;
  bool negated = false;
  Special special = Special::kLane;
  // The value, or what is added to an address.
  std::uint64_t immediate = 0;
  std::vector<Operand> items;

  static constexpr std::uint32_t kNoRegister = 0xffffffffU;
};

struct Instruction {
  Opcode opcode = Opcode::kExit;
  Mode mode = Mode::kNone;
  // Of the result, and of the source where it has another.
  Type type;
  Type source_type;
  Space space = Space::kGlobal;
  std::vector<Operand> operands;
  std::uint32_t guard = Operand::kNoRegister;
  bool guard_negated = false;
  // Of a branch: the instruction it goes to.
  std::size_t target = 0;
  std::size_t line = 0;
};

struct Parameter {
  std::size_t offset = 0;
  std::size_t bytes = 0;
};

struct Kernel {
  // Mangled.
  std::string name;
  std::vector<Parameter> parameters;
  std::size_t parameter_bytes = 0;
  // Dynamic shared memory follows the static.
  std::size_t shared_bytes = 0;
  std::size_t registers = 0;
  std::vector<Instruction> code;
};

// Throws std::runtime_error naming the line of what it does not know.
std::vector<Kernel> parse_module(const std::string& text);

}  // namespace secateur::ptx
