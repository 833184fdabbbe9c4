// Instructions that CUDA C++ has no plain spelling for: 16-bit values, asynchronous copies, matrix fragments. Under nvcc they are inline
// PTX; on the host a model of the same instructions (emulator/tensor_core_on_host.h).
#pragma once

#include "gpu.h"

namespace secateur::gpu {

// A bfloat16 as stored. Widening is exact; narrowing rounds to nearest even and keeps NaN.
struct bfloat16 {
  std::uint16_t bits;
};

// A float16 as stored; the same holds.
struct float16 {
  std::uint16_t bits;
};

#if defined(SECATEUR_KERNEL_CODE)

__device__ inline float widen(bfloat16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }

__device__ inline bfloat16 narrow(float value) {
  const unsigned bits = __float_as_uint(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return {static_cast<std::uint16_t>((bits >> 16) | 0x40U)};
  return {static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}

template <class Stored>
__device__ Stored narrow(float value);

template <>
__device__ inline bfloat16 narrow<bfloat16>(float value) {
  return narrow(value);
}

template <>
__device__ inline float16 narrow<float16>(float value) {
  const unsigned bits = __float_as_uint(value);
  const unsigned sign = (bits >> 16) & 0x8000U;
  const unsigned magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return {static_cast<std::uint16_t>(sign | 0x7e00U)};
  // From 65520 on.
  if (magnitude >= 0x477ff000U) return {static_cast<std::uint16_t>(sign | 0x7c00U)};
  // Below 2^-14 it is a count of 2^-24, to which the sum is rounded.
  if (magnitude < 0x38800000U) {
    return {static_cast<std::uint16_t>(sign | (__float_as_uint(__uint_as_float(magnitude) + 0.5F) - 0x3f000000U))};
  }
  return {static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000U + 0xfffU + ((magnitude >> 13) & 1U)) >> 13))};
}

__device__ inline float widen(float value) { return value; }

// Exact for every value, subnormal ones too.
__device__ inline float widen(float16 value) {
  const unsigned sign = static_cast<unsigned>(value.bits & 0x8000U) << 16;
  const unsigned magnitude = value.bits & 0x7fffU;
  // Below 2^-14 the value is a count of 2^-24.
  if (magnitude < 0x0400U) return __uint_as_float(__float_as_uint(static_cast<float>(magnitude) * 5.9604644775390625e-8F) | sign);
  if (magnitude >= 0x7c00U) return __uint_as_float(sign | 0x7f800000U | ((magnitude & 0x3ffU) << 13));
  return __uint_as_float(sign | ((magnitude << 13) + 0x38000000U));
}

#endif

#if defined(__CUDACC__)

// Starts copying 16 bytes from global to shared memory (both 16-byte aligned). Only the first `bytes` (0 to 16) are read, the rest is
// filled with zeros. Visible to this thread after copy_async_wait, to others after a barrier that follows.
__device__ inline void copy_async_16(void* shared, const void* global, unsigned bytes) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(bytes) : "memory");
}

// Closes a group of this thread's copies.
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `Pending` of this thread's latest groups are under way.
template <int Pending>
__device__ inline void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// Four 8x8 matrices of 16-bit values from shared memory: lane i gives the address of row i % 8 of matrix i / 8 (16 bytes, aligned) and
// gets, of every matrix, the two values at row lane / 4, columns 2 (lane % 4) and the next.
__device__ inline void load_matrices(unsigned (&fragments)[4], const void* shared_row) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
               : "r"(address)
               : "memory");
}

// As load_matrices, each matrix transposed.
__device__ inline void load_matrices_transposed(unsigned (&fragments)[4], const void* shared_row) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
               : "r"(address)
               : "memory");
}

// Both as Narrow, bfloat16 or float16, rounded to nearest even, the first in the lower half; of NaN no payload is kept.
template <class Narrow>
__device__ unsigned narrow_pair(float low, float high);

template <>
__device__ inline unsigned narrow_pair<bfloat16>(float low, float high) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

template <>
__device__ inline unsigned narrow_pair<float16>(float low, float high) {
  unsigned pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// sums[16, 8] += left[16, 16] · right[16, 8] for a full warp; Narrow in, float32 sums. Fragments as mma.m16n8k16 lays them out:
// left: rows lane / 4 and + 8, columns 2 (lane % 4), + 1 and + 8; right: the same of its transpose; sums: rows lane / 4 and + 8, columns
// 2 (lane % 4), + 1.
template <class Narrow>
__device__ void multiply_accumulate(float (&sums)[4], const unsigned (&left)[4], const unsigned (&right)[2]);

template <>
__device__ inline void multiply_accumulate<bfloat16>(float (&sums)[4], const unsigned (&left)[4], const unsigned (&right)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}

template <>
__device__ inline void multiply_accumulate<float16>(float (&sums)[4], const unsigned (&left)[4], const unsigned (&right)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}

#endif

}  // namespace secateur::gpu

#if defined(SECATEUR_KERNEL_CODE) && !defined(__CUDACC__)
#include "tensor_core_on_host.h"
#endif
