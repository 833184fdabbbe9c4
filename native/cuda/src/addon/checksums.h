// Checksums of bytes that JavaScript has.
#pragma once

#include <napi.h>

namespace secateur::addon {

// (target, source) → 8 bytes, big-endian. On JavaScript's thread: handing it to another costs as much as it takes.
Napi::Value move_with_checksum(const Napi::CallbackInfo& info);

// (bytes, chunkBytes) → promise of the checksum of each chunk, 8 bytes each, big-endian. On a thread of libuv's pool, as the reads that
// bring the bytes.
Napi::Value chunk_checksums(const Napi::CallbackInfo& info);

}  // namespace secateur::addon
