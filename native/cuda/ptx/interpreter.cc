#include "interpreter.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <deque>
#include <optional>
#include <stdexcept>
#include <string>

#include "matrix_product.h"

namespace secateur::ptx {
namespace {

constexpr unsigned kWarpLanes = 32;
constexpr std::byte kPoison{0xff};

// What waits for others to meet it.
enum class State { kReady, kAtBarrier, kAtWarpOperation, kDone };

struct PendingCopy {
  std::uint64_t shared_address;
  std::uint64_t global_address;
  std::uint64_t bytes;
  std::uint64_t copied_bytes;
};

struct Thread {
  std::vector<std::uint64_t> registers;
  std::size_t next = 0;
  Extent index;
  unsigned lane = 0;
  State state = State::kReady;
  std::uint32_t mask = 0;
  // Copies in groups; the last group is not committed yet.
  std::deque<std::vector<PendingCopy>> copies{1};
};

float as_float(std::uint64_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits)); }
double as_double(std::uint64_t bits) { return std::bit_cast<double>(bits); }
std::uint64_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
std::uint64_t bits_of(double value) { return std::bit_cast<std::uint64_t>(value); }

std::uint64_t narrowed(std::uint64_t value, unsigned bytes) { return bytes == 8 ? value : value & ((std::uint64_t{1} << bytes * 8) - 1); }

// Of a register's bits: sign-extended when the type is signed, else zero-extended.
std::uint64_t extended(std::uint64_t value, Type type) {
  if (type.kind == Kind::kPredicate) return value & 1;
  const unsigned unused = 64 - type.bytes * 8;
  if (type.kind == Kind::kSigned) return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << unused) >> unused);
  return value << unused >> unused;
}

template <class Value>
bool compare(Mode mode, Value a, Value b) {
  switch (mode) {
    case Mode::kEqual:
      return a == b;
    case Mode::kNotEqual:
      return a < b || a > b;
    case Mode::kLess:
      return a < b;
    case Mode::kLessEqual:
      return a <= b;
    case Mode::kGreater:
      return a > b;
    case Mode::kGreaterEqual:
      return a >= b;
    case Mode::kEqualOrNan:
      return !(a < b || a > b);
    case Mode::kNotEqualOrNan:
      return !(a == b);
    case Mode::kLessOrNan:
      return !(a >= b);
    case Mode::kLessEqualOrNan:
      return !(a > b);
    case Mode::kGreaterOrNan:
      return !(a <= b);
    case Mode::kGreaterEqualOrNan:
      return !(a < b);
    default:
      throw std::logic_error("not a comparison");
  }
}

template <class Real>
Real fused_multiply_add(Mode mode, Real a, Real b, Real c) {
  if (mode != Mode::kRoundDown) return std::fma(a, b, c);
  // The compiler must not move the operation out of the changed rounding.
  const int before = std::fegetround();
  std::fesetround(FE_DOWNWARD);
  volatile Real x = a;
  volatile Real result = std::fma(x, b, c);
  std::fesetround(before);
  return result;
}

// Four of the eight bytes of two registers; the top bit of a selector asks for the byte's sign instead.
std::uint64_t permuted(std::uint64_t low, std::uint64_t high, std::uint64_t selectors) {
  const std::uint64_t bytes = (low & 0xffffffffU) | high << 32;
  std::uint64_t chosen = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const std::uint64_t selector = selectors >> 4 * i & 0xf;
    const std::uint64_t byte = bytes >> 8 * (selector & 7) & 0xff;
    chosen |= ((selector & 8) == 0 ? byte : (byte & 0x80) == 0 ? 0 : 0xff) << 8 * i;
  }
  return chosen;
}

// Rounded to nearest even; a NaN is the canonical one.
std::uint64_t bfloat16_of(float value) {
  if (std::isnan(value)) return 0x7fff;
  const std::uint64_t bits = bits_of(value);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// The same of a float16; from 65520 on it is infinite.
std::uint64_t float16_of(float value) {
  if (std::isnan(value)) return 0x7fff;
  const std::uint64_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (magnitude >= 65520) return sign | 0x7c00;
  if (magnitude == 0) return sign;
  // Values between two powers of two are so many units apart, and below 2^-14 as far as just above.
  const int exponent = std::max(std::ilogb(magnitude), -14);
  const auto units = static_cast<std::uint64_t>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return sign | (static_cast<std::uint64_t>(exponent + 14) * 1024 + units);
}

float flushed(float value) { return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0F, value) : value; }

class BlockRun {
 public:
  BlockRun(const Kernel& kernel, const Launch& launch, Traffic* traffic)
      : kernel_(kernel), launch_(launch), traffic_(traffic), parameters_(kernel.parameter_bytes), threads_(launch.block.count()) {
    if (launch.parameters.size() != kernel.parameters.size()) throw std::runtime_error(kernel.name + ": wrong number of parameters");
    for (std::size_t i = 0; i < launch.parameters.size(); ++i) {
      const std::vector<std::byte>& value = launch.parameters[i];
      if (value.size() != kernel.parameters[i].bytes)
        throw std::runtime_error(kernel.name + ": parameter " + std::to_string(i) + " has another size");
      std::ranges::copy(value, parameters_.begin() + static_cast<std::ptrdiff_t>(kernel.parameters[i].offset));
    }
    shared_.resize((kernel.shared_bytes + 15) / 16 * 16 + launch.dynamic_shared_bytes);
  }

  void run(Extent block) {
    block_ = block;
    std::ranges::fill(shared_, kPoison);
    const Extent size = launch_.block;
    for (std::size_t i = 0; i < threads_.size(); ++i) {
      Thread& thread = threads_[i];
      thread = {};
      // Not zero: who reads a register before it is written notices.
      thread.registers.assign(kernel_.registers, 0xdeadbeefdeadbeefU);
      thread.index = {static_cast<unsigned>(i % size.x), static_cast<unsigned>(i / size.x % size.y),
                      static_cast<unsigned>(i / size.x / size.y)};
      thread.lane = static_cast<unsigned>(i % kWarpLanes);
    }
    for (std::size_t done = 0; done < threads_.size();) {
      bool moved = false;
      for (std::size_t first = 0; first < threads_.size(); first += kWarpLanes) moved |= advance_warp(first);
      for (std::size_t first = 0; first < threads_.size(); first += kWarpLanes) moved |= meet_in_warp(first);
      done = static_cast<std::size_t>(std::ranges::count(threads_, State::kDone, &Thread::state));
      moved |= pass_barrier();
      if (!moved && done < threads_.size()) fail_stuck();
    }
  }

 private:
  [[noreturn]] void fail(const Instruction& instruction, const std::string& what) const {
    throw std::runtime_error(kernel_.name + ", PTX line " + std::to_string(instruction.line) + ": " + what);
  }

  [[noreturn]] void fail_stuck() const {
    const auto waiting = std::ranges::find_if(threads_, [](const Thread& thread) { return thread.state != State::kDone; });
    fail(kernel_.code[waiting->next - (waiting->state == State::kAtBarrier ? 1 : 0)], "threads wait for each other for ever");
  }

  // All threads that are left have come to it.
  bool pass_barrier() {
    const bool all = std::ranges::all_of(
        threads_, [](const Thread& thread) { return thread.state == State::kAtBarrier || thread.state == State::kDone; });
    if (!all || std::ranges::count(threads_, State::kAtBarrier, &Thread::state) == 0) return false;
    std::size_t place = 0;
    for (Thread& thread : threads_) {
      if (thread.state == State::kDone) fail_divergent_barrier();
      if (place != 0 && thread.next != place) fail_divergent_barrier();
      place = thread.next;
      thread.state = State::kReady;
    }
    return true;
  }

  [[noreturn]] void fail_divergent_barrier() const {
    const auto waiting = std::ranges::find(threads_, State::kAtBarrier, &Thread::state);
    fail(kernel_.code[waiting == threads_.end() ? 0 : waiting->next - 1], "divergent barrier");
  }

  std::uint64_t value(const Thread& thread, const Operand& operand) const {
    switch (operand.form) {
      case Operand::Form::kRegister:
        return thread.registers[operand.reg] ^ (operand.negated ? 1U : 0U);
      case Operand::Form::kImmediate:
        return operand.immediate;
      case Operand::Form::kSpecial:
        return special(thread, operand.special);
      default:
        throw std::logic_error("operand without a value");
    }
  }

  std::uint64_t special(const Thread& thread, Special which) const {
    switch (which) {
      case Special::kThreadX:
        return thread.index.x;
      case Special::kThreadY:
        return thread.index.y;
      case Special::kThreadZ:
        return thread.index.z;
      case Special::kBlockX:
        return block_.x;
      case Special::kBlockY:
        return block_.y;
      case Special::kBlockZ:
        return block_.z;
      case Special::kBlockSizeX:
        return launch_.block.x;
      case Special::kBlockSizeY:
        return launch_.block.y;
      case Special::kBlockSizeZ:
        return launch_.block.z;
      case Special::kGridX:
        return launch_.grid.x;
      case Special::kGridY:
        return launch_.grid.y;
      case Special::kGridZ:
        return launch_.grid.z;
      case Special::kLane:
        return thread.lane;
    }
    throw std::logic_error("unknown special register");
  }

  std::uint64_t address_of(const Thread& thread, const Operand& operand) const {
    return operand.immediate + (operand.reg == Operand::kNoRegister ? 0 : thread.registers[operand.reg]);
  }

  std::byte* shared_at(const Instruction& instruction, std::uint64_t address, std::size_t bytes) {
    address = static_cast<std::uint32_t>(address);
    if (address + bytes > shared_.size()) fail(instruction, "access outside of shared memory");
    if (address % bytes != 0) fail(instruction, "misaligned access to shared memory");
    return &shared_[address];
  }

  std::byte* global_at(const Instruction& instruction, std::uint64_t address, std::size_t bytes) {
    if (address % bytes != 0) fail(instruction, "misaligned access to global memory");
    const auto holds = [&](std::span<std::byte> range) {
      const auto begin = reinterpret_cast<std::uintptr_t>(range.data());
      return address >= begin && address + bytes <= begin + range.size();
    };
    if (!holds(latest_range_)) {
      const auto found = std::ranges::find_if(launch_.memory, holds);
      if (found == launch_.memory.end()) fail(instruction, "access outside of global memory");
      latest_range_ = *found;
    }
    return reinterpret_cast<std::byte*>(address);
  }

  std::byte* memory_at(const Instruction& instruction, Thread& thread, const Operand& operand, std::size_t bytes, bool writes) {
    const std::uint64_t address = address_of(thread, operand);
    if (instruction.space == Space::kParameter) return &parameters_.at(address);
    count(thread,
          {.shared = instruction.space == Space::kShared, .writes = writes, .address = address, .bytes = static_cast<unsigned>(bytes)});
    return instruction.space == Space::kShared ? shared_at(instruction, address, bytes) : global_at(instruction, address, bytes);
  }

  void count(const Thread& thread, Access access) {
    if (traffic_ == nullptr) return;
    access.lane = thread.lane;
    together_.push_back(access);
  }

  void finish_count() {
    if (traffic_ == nullptr) return;
    traffic_->add(together_);
    together_.clear();
  }

  std::span<Thread> lanes_from(std::size_t first) {
    return std::span(threads_).subspan(first, std::min<std::size_t>(kWarpLanes, threads_.size() - first));
  }

  // Until all threads of a warp wait for others or are done; whether one of them did anything.
  bool advance_warp(std::size_t first) {
    const std::span<Thread> lanes = lanes_from(first);
    const bool moved = std::ranges::count(lanes, State::kReady, &Thread::state) != 0;
    if (traffic_ != nullptr) {
      advance_together(lanes);
    } else {
      for (Thread& thread : lanes) {
        while (thread.state == State::kReady) advance(thread);
      }
    }
    return moved;
  }

  // What lanes do together is what counts. Those that are furthest behind go first: lanes that have left a loop, or taken the shorter way,
  // wait for the others where their ways meet.
  void advance_together(std::span<Thread> lanes) {
    for (;;) {
      std::size_t place = SIZE_MAX;
      for (const Thread& thread : lanes) {
        if (thread.state == State::kReady) place = std::min(place, thread.next);
      }
      if (place == SIZE_MAX) return;
      for (Thread& thread : lanes) {
        if (thread.state == State::kReady && thread.next == place) advance(thread);
      }
      finish_count();
    }
  }

  // One instruction on.
  void advance(Thread& thread) {
    const Instruction& instruction = kernel_.code.at(thread.next);
    if (instruction.guard != Operand::kNoRegister && ((thread.registers[instruction.guard] & 1) != 0) == instruction.guard_negated) {
      ++thread.next;
      return;
    }
    execute(instruction, thread);
  }

  void execute(const Instruction& instruction, Thread& thread) {
    switch (instruction.opcode) {
      case Opcode::kExit:
        for (std::vector<PendingCopy>& group : thread.copies) copy(instruction, group);
        thread.state = State::kDone;
        return;
      case Opcode::kBra:
        thread.next = instruction.target;
        return;
      case Opcode::kBar:
        if (value(thread, instruction.operands.at(0)) != 0 || instruction.operands.size() > 1)
          fail(instruction, "only barrier 0 of the whole block is supported");
        thread.state = State::kAtBarrier;
        break;
      case Opcode::kWarpBarrier:
      case Opcode::kShfl:
      case Opcode::kVote:
      case Opcode::kMatch:
        thread.state = State::kAtWarpOperation;
        thread.mask = static_cast<std::uint32_t>(value(thread, instruction.operands.back()));
        return;
      case Opcode::kLdmatrix:
      case Opcode::kMmaBF16:
      case Opcode::kMmaF16:
        thread.state = State::kAtWarpOperation;
        thread.mask = 0xffffffffU;
        return;
      case Opcode::kLd:
        load(instruction, thread);
        break;
      case Opcode::kSt:
        store(instruction, thread);
        break;
      case Opcode::kAtom:
        update(instruction, thread);
        break;
      case Opcode::kCopyAsync:
        start_copy(instruction, thread);
        break;
      case Opcode::kCommitCopies:
        thread.copies.emplace_back();
        break;
      case Opcode::kWaitCopies:
        for (const std::uint64_t pending = value(thread, instruction.operands.at(0)); thread.copies.size() > pending + 1;) {
          copy(instruction, thread.copies.front());
          thread.copies.pop_front();
        }
        break;
      case Opcode::kMov:
        move(instruction, thread);
        break;
      default:
        set(thread, instruction.operands.at(0), compute(instruction, thread), instruction);
    }
    ++thread.next;
  }

  // Results keep the width of the type they are written as.
  void set(Thread& thread, const Operand& target, std::uint64_t result, const Instruction& instruction) {
    unsigned bytes = instruction.opcode == Opcode::kSetp || instruction.type.kind == Kind::kPredicate ? 1 : instruction.type.bytes;
    if (instruction.mode == Mode::kWide) bytes *= 2;
    const bool counts = instruction.opcode == Opcode::kPopc || instruction.opcode == Opcode::kClz || instruction.opcode == Opcode::kBfind;
    thread.registers[target.reg] = narrowed(result, counts ? 4 : bytes);
  }

  void load(const Instruction& instruction, Thread& thread) {
    const Operand& target = instruction.operands.at(0);
    const std::size_t items = target.form == Operand::Form::kList ? target.items.size() : 1;
    const std::byte* const memory = memory_at(instruction, thread, instruction.operands.at(1), items * instruction.type.bytes, false);
    for (std::size_t i = 0; i < items; ++i) {
      std::uint64_t loaded = 0;
      std::memcpy(&loaded, memory + i * instruction.type.bytes, instruction.type.bytes);
      // Registers may be wider than what is loaded.
      thread.registers[(items > 1 ? target.items[i] : target).reg] = extended(loaded, instruction.type);
    }
  }

  void store(const Instruction& instruction, Thread& thread) {
    const Operand& source = instruction.operands.at(1);
    const std::size_t items = source.form == Operand::Form::kList ? source.items.size() : 1;
    std::byte* const memory = memory_at(instruction, thread, instruction.operands.at(0), items * instruction.type.bytes, true);
    for (std::size_t i = 0; i < items; ++i) {
      const std::uint64_t stored = value(thread, items > 1 ? source.items[i] : source);
      std::memcpy(memory + i * instruction.type.bytes, &stored, instruction.type.bytes);
    }
  }

  void update(const Instruction& instruction, Thread& thread) {
    if (instruction.type.kind == Kind::kFloat) fail(instruction, "an atomic sum of floating-point values has no fixed order");
    std::byte* const memory = memory_at(instruction, thread, instruction.operands.at(1), instruction.type.bytes, true);
    std::uint64_t before = 0;
    std::memcpy(&before, memory, instruction.type.bytes);
    const std::uint64_t operand = value(thread, instruction.operands.at(2));
    const std::uint64_t after = instruction.mode == Mode::kAtomicAdd ? before + operand : before | operand;
    std::memcpy(memory, &after, instruction.type.bytes);
    set(thread, instruction.operands.at(0), before, instruction);
  }

  void start_copy(const Instruction& instruction, Thread& thread) {
    const std::uint64_t bytes = value(thread, instruction.operands.at(2));
    const std::uint64_t copied = instruction.operands.size() > 3 ? value(thread, instruction.operands[3]) & 0xffffffffU : bytes;
    if (bytes != 16 || copied > bytes)
      fail(instruction, "a copy of " + std::to_string(bytes) + " bytes, " + std::to_string(copied) + " from memory");
    const std::uint64_t target = address_of(thread, instruction.operands.at(0));
    const std::uint64_t source = address_of(thread, instruction.operands.at(1));
    if (copied != 0) count(thread, {.shared = false, .writes = false, .address = source, .bytes = static_cast<unsigned>(copied)});
    thread.copies.back().push_back({.shared_address = target, .global_address = source, .bytes = bytes, .copied_bytes = copied});
  }

  // What is not copied from memory is zero.
  void copy(const Instruction& instruction, const std::vector<PendingCopy>& group) {
    for (const PendingCopy& pending : group) {
      std::byte* const target = shared_at(instruction, pending.shared_address, pending.bytes);
      std::fill_n(target, pending.bytes, std::byte{0});
      if (pending.copied_bytes == 0) continue;
      // Part of an aligned piece may be outside of the memory.
      if (pending.global_address % pending.bytes != 0) fail(instruction, "misaligned copy from global memory");
      for (std::uint64_t i = 0; i < pending.copied_bytes; ++i) target[i] = *global_at(instruction, pending.global_address + i, 1);
    }
  }

  void move(const Instruction& instruction, Thread& thread) {
    const Operand& target = instruction.operands.at(0);
    const Operand& source = instruction.operands.at(1);
    if (target.form == Operand::Form::kList) {
      const unsigned bytes = instruction.type.bytes / static_cast<unsigned>(target.items.size());
      const std::uint64_t whole = value(thread, source);
      for (unsigned i = 0; i < target.items.size(); ++i) thread.registers[target.items[i].reg] = narrowed(whole >> i * bytes * 8, bytes);
    } else if (source.form == Operand::Form::kList) {
      const unsigned bytes = instruction.type.bytes / static_cast<unsigned>(source.items.size());
      std::uint64_t whole = 0;
      for (unsigned i = 0; i < source.items.size(); ++i) whole |= narrowed(value(thread, source.items[i]), bytes) << i * bytes * 8;
      thread.registers[target.reg] = whole;
    } else {
      set(thread, target, value(thread, source), instruction);
    }
  }

  std::uint64_t compute(const Instruction& instruction, const Thread& thread) const {
    if (instruction.opcode == Opcode::kCvt) return convert(instruction, value(thread, instruction.operands.at(1)));
    const auto operand = [&](std::size_t i) { return value(thread, instruction.operands.at(i)); };
    if (instruction.type.kind == Kind::kFloat && instruction.opcode != Opcode::kSelp) {
      return instruction.type.bytes == 4 ? compute_real<float>(instruction, operand) : compute_real<double>(instruction, operand);
    }
    return compute_integer(instruction, operand);
  }

  template <class Real>
  std::uint64_t compute_real(const Instruction& instruction, const auto& operand) const {
    const auto real = [&](std::size_t i) {
      if constexpr (sizeof(Real) == 4) {
        return as_float(operand(i));
      } else {
        return as_double(operand(i));
      }
    };
    switch (instruction.opcode) {
      case Opcode::kAdd:
        return bits_of(real(1) + real(2));
      case Opcode::kSub:
        return bits_of(real(1) - real(2));
      case Opcode::kMul:
        return bits_of(real(1) * real(2));
      case Opcode::kDiv:
        return bits_of(real(1) / real(2));
      case Opcode::kFma:
        return bits_of(fused_multiply_add(instruction.mode, real(1), real(2), real(3)));
      case Opcode::kMin:
        return bits_of(std::fmin(real(1), real(2)));
      case Opcode::kMax:
        return bits_of(std::fmax(real(1), real(2)));
      case Opcode::kAbs:
        return bits_of(std::fabs(real(1)));
      case Opcode::kNeg:
        return bits_of(-real(1));
      case Opcode::kSqrt:
        return bits_of(std::sqrt(real(1)));
      case Opcode::kRcp: {
        const std::uint64_t exact = bits_of(Real{1} / real(1));
        // The approximation of a float64 has no lower half.
        return instruction.mode == Mode::kApproximate ? exact & ~std::uint64_t{0xffffffffU} : exact;
      }
      case Opcode::kEx2:
        if (instruction.mode == Mode::kFlushed) return bits_of(flushed(std::exp2(flushed(static_cast<float>(real(1))))));
        return bits_of(std::exp2(static_cast<float>(real(1))));
      case Opcode::kNarrowPairBF16:
        return bfloat16_of(static_cast<float>(real(1))) << 16 | bfloat16_of(static_cast<float>(real(2)));
      case Opcode::kNarrowPairF16:
        return float16_of(static_cast<float>(real(1))) << 16 | float16_of(static_cast<float>(real(2)));
      case Opcode::kSetp:
        return compare(instruction.mode, real(1), real(2)) ? 1 : 0;
      default:
        fail(instruction, "not an operation on floating-point values");
    }
  }

  std::uint64_t compute_integer(const Instruction& instruction, const auto& operand) const {
    const Type type = instruction.type;
    const unsigned bits = type.bytes * 8;
    const bool is_signed = type.kind == Kind::kSigned;
    const auto integer = [&](std::size_t i) { return extended(operand(i), type); };
    const auto signed_integer = [&](std::size_t i) { return static_cast<std::int64_t>(integer(i)); };
    switch (instruction.opcode) {
      case Opcode::kAdd:
        return integer(1) + integer(2);
      case Opcode::kSub:
        return integer(1) - integer(2);
      case Opcode::kMul:
        return instruction.mode == Mode::kHigh ? high_product(instruction, integer(1), integer(2)) : integer(1) * integer(2);
      case Opcode::kMad:
        return integer(1) * integer(2) + integer(3);
      case Opcode::kDiv:
      case Opcode::kRem: {
        if (integer(2) == 0) fail(instruction, "division by zero");
        const bool divides = instruction.opcode == Opcode::kDiv;
        if (!is_signed) return divides ? integer(1) / integer(2) : integer(1) % integer(2);
        return static_cast<std::uint64_t>(divides ? signed_integer(1) / signed_integer(2) : signed_integer(1) % signed_integer(2));
      }
      case Opcode::kMin:
        return is_signed ? static_cast<std::uint64_t>(std::min(signed_integer(1), signed_integer(2))) : std::min(integer(1), integer(2));
      case Opcode::kMax:
        return is_signed ? static_cast<std::uint64_t>(std::max(signed_integer(1), signed_integer(2))) : std::max(integer(1), integer(2));
      case Opcode::kAbs:
        return signed_integer(1) < 0 ? 0 - integer(1) : integer(1);
      case Opcode::kNeg:
        return 0 - integer(1);
      case Opcode::kAnd:
        return integer(1) & integer(2);
      case Opcode::kOr:
        return integer(1) | integer(2);
      case Opcode::kXor:
        return integer(1) ^ integer(2);
      case Opcode::kNot:
        return type.kind == Kind::kPredicate ? integer(1) ^ 1 : ~integer(1);
      case Opcode::kShl: {
        const std::uint64_t distance = operand(2) & 0xffffffffU;
        return distance >= bits ? 0 : integer(1) << distance;
      }
      case Opcode::kShr: {
        const std::uint64_t distance = operand(2) & 0xffffffffU;
        if (is_signed) return static_cast<std::uint64_t>(signed_integer(1) >> std::min<std::uint64_t>(distance, bits - 1));
        return distance >= bits ? 0 : integer(1) >> distance;
      }
      case Opcode::kSetp:
        return (is_signed ? compare(instruction.mode, signed_integer(1), signed_integer(2))
                          : compare(instruction.mode, integer(1), integer(2)))
                   ? 1
                   : 0;
      case Opcode::kSelp:
        return (operand(3) & 1) != 0 ? operand(1) : operand(2);
      case Opcode::kPrmt:
        return permuted(operand(1), operand(2), operand(3));
      case Opcode::kPopc:
        return static_cast<std::uint64_t>(std::popcount(integer(1)));
      case Opcode::kClz:
        return static_cast<std::uint64_t>(std::countl_zero(integer(1))) - (64 - bits);
      case Opcode::kBfind:
        // How far the highest bit that is set is from the top.
        return integer(1) == 0 ? 0xffffffffU : static_cast<std::uint64_t>(std::countl_zero(integer(1))) - (64 - bits);
      case Opcode::kBrev: {
        std::uint64_t reversed = 0;
        for (unsigned i = 0; i < bits; ++i) reversed |= (integer(1) >> i & 1) << (bits - 1 - i);
        return reversed;
      }
      case Opcode::kBfi: {
        const std::uint64_t place = operand(3) & 0xff;
        const std::uint64_t length = operand(4) & 0xff;
        std::uint64_t result = integer(2);
        for (std::uint64_t i = 0; i < length && place + i < bits; ++i) {
          result = (result & ~(std::uint64_t{1} << (place + i))) | (integer(1) >> i & 1) << (place + i);
        }
        return result;
      }
      case Opcode::kCvta:
        // Global addresses are generic ones here.
        return integer(1);
      default:
        fail(instruction, "not an operation on integers");
    }
  }

  std::uint64_t high_product(const Instruction& instruction, std::uint64_t a, std::uint64_t b) const {
    if (instruction.type.kind == Kind::kSigned) fail(instruction, "the upper half of a signed product");
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>(static_cast<Wide>(a) * b >> instruction.type.bytes * 8);
  }

  std::uint64_t convert(const Instruction& instruction, std::uint64_t bits) const {
    const Type from = instruction.source_type;
    const Type to = instruction.type;
    if (from.kind != Kind::kFloat) {
      const std::uint64_t source = extended(bits, from);
      if (to.kind != Kind::kFloat) return source;
      if (from.kind == Kind::kSigned) {
        const auto integer = static_cast<std::int64_t>(source);
        return to.bytes == 4 ? bits_of(static_cast<float>(integer)) : bits_of(static_cast<double>(integer));
      }
      return to.bytes == 4 ? bits_of(static_cast<float>(source)) : bits_of(static_cast<double>(source));
    }
    const double source = from.bytes == 4 ? static_cast<double>(as_float(bits)) : as_double(bits);
    const double result = rounded(instruction.mode, source);
    if (to.kind != Kind::kFloat) return as_unsigned(instruction, result);
    return to.bytes == 4 ? bits_of(static_cast<float>(result)) : bits_of(result);
  }

  static double rounded(Mode mode, double value) {
    switch (mode) {
      case Mode::kRoundDown:
        return std::floor(value);
      case Mode::kRoundToZero:
        return std::trunc(value);
      case Mode::kSaturate:
        return value > 0 ? std::min(value, 1.0) : 0.0;
      default:
        return value;
    }
  }

  // Of a whole number; what the type cannot hold becomes the nearest that it can, and NaN becomes 0.
  std::uint64_t as_unsigned(const Instruction& instruction, double whole) const {
    if (instruction.type.kind == Kind::kSigned) fail(instruction, "a conversion to signed integers");
    if (!(whole > 0)) return 0;
    const double end = std::ldexp(1.0, static_cast<int>(instruction.type.bytes) * 8);
    return whole < end ? static_cast<std::uint64_t>(whole) : narrowed(~std::uint64_t{0}, instruction.type.bytes);
  }

  // Completes the warp operations of a warp whose lanes have all come; whether there was one.
  bool meet_in_warp(std::size_t first) {
    const std::span<Thread> lanes = lanes_from(first);
    bool moved = false;
    for (Thread& thread : lanes) {
      if (thread.state != State::kAtWarpOperation) continue;
      const Instruction& instruction = kernel_.code[thread.next];
      if ((thread.mask >> thread.lane & 1) == 0) fail(instruction, "a lane is not in its own mask");
      if (!has_met(instruction, thread, lanes)) continue;
      exchange(instruction, thread.mask, lanes);
      moved = true;
    }
    return moved;
  }

  bool has_met(const Instruction& instruction, const Thread& thread, std::span<const Thread> lanes) const {
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
      if ((thread.mask >> lane & 1) == 0) continue;
      if (lane >= lanes.size() || lanes[lane].state == State::kDone)
        fail(instruction, "a warp operation waits for lane " + std::to_string(lane) + ", which has ended");
      if (lanes[lane].state != State::kAtWarpOperation) return false;
      if (lanes[lane].next != thread.next || lanes[lane].mask != thread.mask) return false;
    }
    return true;
  }

  void exchange(const Instruction& instruction, std::uint32_t mask, std::span<Thread> lanes) {
    const auto takes_part = [mask](unsigned lane) { return (mask >> lane & 1) != 0; };
    if (instruction.opcode == Opcode::kLdmatrix) {
      load_matrices(instruction, lanes);
    } else if (instruction.opcode == Opcode::kMmaBF16 || instruction.opcode == Opcode::kMmaF16) {
      multiply_matrices(instruction, lanes);
    } else if (instruction.opcode != Opcode::kWarpBarrier) {
      std::array<std::uint64_t, kWarpLanes> given{};
      for (unsigned lane = 0; lane < lanes.size(); ++lane) {
        if (takes_part(lane)) given[lane] = value(lanes[lane], instruction.operands.at(1));
      }
      for (unsigned lane = 0; lane < lanes.size(); ++lane) {
        if (!takes_part(lane)) continue;
        if (instruction.opcode == Opcode::kShfl) shuffle(instruction, mask, given, lanes[lane]);
        if (instruction.opcode == Opcode::kVote) vote(instruction, mask, given, lanes[lane]);
        if (instruction.opcode == Opcode::kMatch) match(instruction, mask, given, lanes[lane]);
      }
    }
    for (unsigned lane = 0; lane < lanes.size(); ++lane) {
      if (!takes_part(lane)) continue;
      lanes[lane].state = State::kReady;
      ++lanes[lane].next;
    }
  }

  void shuffle(const Instruction& instruction, std::uint32_t mask, const std::array<std::uint64_t, kWarpLanes>& given, Thread& thread) {
    const auto distance = static_cast<unsigned>(value(thread, instruction.operands.at(2)) & 31);
    const std::uint64_t limits = value(thread, instruction.operands.at(3));
    const auto segment = static_cast<unsigned>(limits >> 8 & 31);
    const auto clamp = static_cast<unsigned>(limits & 31);
    const unsigned lane = thread.lane;
    const unsigned last = (lane & segment) | (clamp & ~segment);
    unsigned source = lane;
    bool inside = false;
    switch (instruction.mode) {
      case Mode::kUp:
        inside = lane >= distance && lane - distance >= last;
        if (inside) source = lane - distance;
        break;
      case Mode::kDown:
        inside = lane + distance <= last;
        if (inside) source = lane + distance;
        break;
      case Mode::kButterfly:
        inside = (lane ^ distance) <= last;
        if (inside) source = lane ^ distance;
        break;
      default: {
        const unsigned wanted = (lane & segment) | (distance & ~segment);
        inside = wanted <= last;
        if (inside) source = wanted;
      }
    }
    if ((mask >> source & 1) == 0)
      fail(instruction, "lane " + std::to_string(lane) + " reads from lane " + std::to_string(source) + ", which takes no part");
    const Operand& target = instruction.operands.at(0);
    const bool pair = target.form == Operand::Form::kList;
    thread.registers[(pair ? target.items.at(0) : target).reg] = narrowed(given[source], 4);
    if (pair) thread.registers[target.items.at(1).reg] = inside ? 1 : 0;
  }

  void vote(const Instruction& instruction, std::uint32_t mask, const std::array<std::uint64_t, kWarpLanes>& given, Thread& thread) {
    std::uint32_t votes = 0;
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) votes |= static_cast<std::uint32_t>(given[lane] & (mask >> lane & 1)) << lane;
    std::uint64_t result = votes;
    if (instruction.mode == Mode::kAny) result = votes != 0 ? 1 : 0;
    if (instruction.mode == Mode::kAll) result = votes == mask ? 1 : 0;
    thread.registers[instruction.operands.at(0).reg] = result;
  }

  void match(const Instruction& instruction, std::uint32_t mask, const std::array<std::uint64_t, kWarpLanes>& given, Thread& thread) {
    const std::uint64_t own = extended(given[thread.lane], instruction.type);
    std::uint32_t same = 0;
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
      if ((mask >> lane & 1) != 0 && extended(given[lane], instruction.type) == own) same |= 1U << lane;
    }
    thread.registers[instruction.operands.at(0).reg] = same;
  }

  // Lane 8m + r gives the address of row r of matrix m.
  void load_matrices(const Instruction& instruction, std::span<Thread> lanes) {
    constexpr std::size_t kRowBytes = 16;
    std::array<std::array<std::uint16_t, 8>, kWarpLanes> rows;
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
      const std::uint64_t address = address_of(lanes[lane], instruction.operands.at(1));
      std::memcpy(rows[lane].data(), shared_at(instruction, address, kRowBytes), kRowBytes);
      count(lanes[lane], {.shared = true, .writes = false, .address = address & 0xffffffffU, .bytes = kRowBytes});
    }
    finish_count();
    const std::vector<Operand>& targets = instruction.operands.at(0).items;
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
      for (unsigned matrix = 0; matrix < targets.size(); ++matrix) {
        const unsigned row = lane / 4;
        const unsigned column = lane % 4 * 2;
        const auto element = [&](unsigned offset) -> std::uint32_t {
          return instruction.mode == Mode::kTransposed ? rows[matrix * 8 + column + offset][row] : rows[matrix * 8 + row][column + offset];
        };
        lanes[lane].registers[targets[matrix].reg] = element(0) | element(1) << 16;
      }
    }
  }

  void multiply_matrices(const Instruction& instruction, std::span<Thread> lanes) {
    const auto item = [&](const Thread& thread, std::size_t operand, unsigned i) {
      return value(thread, instruction.operands.at(operand).items.at(i));
    };
    WarpMatrices matrices;
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
      for (unsigned i = 0; i < 4; ++i) {
        matrices.left[lane][i] = static_cast<std::uint32_t>(item(lanes[lane], 1, i));
        matrices.sums[lane][i] = as_float(item(lanes[lane], 3, i));
      }
      for (unsigned i = 0; i < 2; ++i) matrices.right[lane][i] = static_cast<std::uint32_t>(item(lanes[lane], 2, i));
    }
    multiply_accumulate(instruction.opcode == Opcode::kMmaF16 ? ElementType::kF16 : ElementType::kBF16, matrices);
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
      for (unsigned i = 0; i < 4; ++i) lanes[lane].registers[instruction.operands.at(0).items.at(i).reg] = bits_of(matrices.sums[lane][i]);
    }
  }

  const Kernel& kernel_;
  const Launch& launch_;
  Traffic* traffic_;
  // What lanes of a warp have done with the instruction at hand.
  std::vector<Access> together_;
  std::vector<std::byte> parameters_;
  std::vector<std::byte> shared_;
  std::vector<Thread> threads_;
  Extent block_;
  std::span<std::byte> latest_range_;
};

}  // namespace

void execute(const Kernel& kernel, const Launch& launch, Traffic* traffic) {
  BlockRun run(kernel, launch, traffic);
  for (unsigned z = 0; z < launch.grid.z; ++z) {
    for (unsigned y = 0; y < launch.grid.y; ++y) {
      for (unsigned x = 0; x < launch.grid.x; ++x) run.run({x, y, z});
    }
  }
}

}  // namespace secateur::ptx
