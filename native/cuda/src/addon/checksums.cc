#include "addon/checksums.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "addon/arguments.h"
#include "addon/engine_object.h"
#include "common/checksum.h"

namespace secateur::addon {

namespace {

constexpr std::size_t kChecksumBytes = 8;

void write_big_endian(std::uint64_t checksum, std::uint8_t* target) {
  for (std::size_t i = kChecksumBytes; i > 0; --i, checksum >>= 8) target[i - 1] = static_cast<std::uint8_t>(checksum & 0xff);
}

// Deletes itself when it has told its result.
class ChecksumWork : public Napi::AsyncWorker {
 public:
  ChecksumWork(Napi::Env env, const Napi::Value& bytes, std::size_t chunk_bytes)
      : Napi::AsyncWorker(env, "secateur.checksums"),
        bytes_(to_bytes(bytes, "bytes")),
        chunk_bytes_(chunk_bytes),
        checksums_(kChecksumBytes * ((bytes_.size() + chunk_bytes - 1) / chunk_bytes)),
        kept_(Napi::Persistent(bytes.As<Napi::Object>())),
        deferred_(Napi::Promise::Deferred::New(env)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    std::uint8_t* target = checksums_.data();
    for (std::size_t offset = 0; offset < bytes_.size(); offset += chunk_bytes_, target += kChecksumBytes) {
      write_big_endian(checksum(bytes_.subspan(offset, std::min(chunk_bytes_, bytes_.size() - offset))), target);
    }
  }

  void OnOK() override {
    Napi::Uint8Array result = Napi::Uint8Array::New(Env(), checksums_.size());
    std::copy(checksums_.begin(), checksums_.end(), result.Data());
    deferred_.Resolve(result);
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  std::span<const std::uint8_t> bytes_;
  std::size_t chunk_bytes_;
  std::vector<std::uint8_t> checksums_;
  // The bytes stay alive so long.
  Napi::ObjectReference kept_;
  Napi::Promise::Deferred deferred_;
};

}  // namespace

Napi::Value move_with_checksum(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const std::span<const std::uint8_t> source = to_bytes(info[1], "source");
    if (to_bytes(info[0], "target").size() != source.size()) {
      throw Error(ErrorCode::kInvalidArgument, "target must have as many bytes as source.");
    }
    const std::uint64_t checksum = copy_with_checksum(info[0].As<Napi::Uint8Array>().Data(), source);
    Napi::ArrayBuffer memory = info[1].As<Napi::Uint8Array>().ArrayBuffer();
    if (2 * source.size() > memory.ByteLength()) memory.Detach();
    Napi::Uint8Array bytes = Napi::Uint8Array::New(info.Env(), kChecksumBytes);
    write_big_endian(checksum, bytes.Data());
    return bytes;
  });
}

Napi::Value chunk_checksums(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const std::size_t chunk_bytes = to_size(info[1], "chunkBytes");
    if (chunk_bytes == 0) throw Error(ErrorCode::kInvalidArgument, "chunkBytes must be positive.");
    auto work = std::make_unique<ChecksumWork>(info.Env(), info[0], chunk_bytes);
    const Napi::Promise promise = work->promise();
    work.release()->Queue();
    return promise;
  });
}

}  // namespace secateur::addon
