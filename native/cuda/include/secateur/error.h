// Errors of the engine. Each kind becomes an EngineError code in TypeScript and a gRPC status beyond.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace secateur {

enum class ErrorCode {
  kInvalidArgument,
  kFailedPrecondition,
  kResourceExhausted,
  kCancelled,
  kNonFinite,
  kInternal,
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

// More memory was asked for than the budget has left.
class OutOfMemory : public Error {
 public:
  OutOfMemory(const std::string& message, std::uint64_t needed_bytes, std::uint64_t available_bytes)
      : Error(ErrorCode::kResourceExhausted, message), needed_bytes_(needed_bytes), available_bytes_(available_bytes) {}
  std::uint64_t needed_bytes() const noexcept { return needed_bytes_; }
  std::uint64_t available_bytes() const noexcept { return available_bytes_; }

 private:
  std::uint64_t needed_bytes_;
  std::uint64_t available_bytes_;
};

}  // namespace secateur
