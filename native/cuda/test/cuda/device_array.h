// An array of the (emulated) device for tests: filled from a vector, with guard values behind its end.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace secateur::test {

inline void require_success(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

template <class Value>
class DeviceArray {
 public:
  // Poisoned, so that what is not written shows.
  explicit DeviceArray(std::size_t size) : size_(size) {
    require_success(cudaMalloc(reinterpret_cast<void**>(&data_), (size + kGuards) * sizeof(Value)));
    require_success(cudaMemset(data_, kPoison, (size + kGuards) * sizeof(Value)));
  }
  explicit DeviceArray(const std::vector<Value>& values) : DeviceArray(values.size()) {
    require_success(cudaMemcpy(data_, values.data(), values.size() * sizeof(Value), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { static_cast<void>(cudaFree(data_)); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  Value* data() { return data_; }
  std::size_t size() const { return size_; }

  // Waits for the device.
  std::vector<Value> read() const {
    require_success(cudaDeviceSynchronize());
    std::vector<Value> values(size_);
    require_success(cudaMemcpy(values.data(), data_, size_ * sizeof(Value), cudaMemcpyDeviceToHost));
    return values;
  }

  // Whether nothing was written behind the end.
  bool is_guarded() const {
    require_success(cudaDeviceSynchronize());
    std::vector<unsigned char> bytes(kGuards * sizeof(Value));
    require_success(cudaMemcpy(bytes.data(), data_ + size_, bytes.size(), cudaMemcpyDeviceToHost));
    for (const unsigned char byte : bytes) {
      if (byte != kPoison) return false;
    }
    return true;
  }

 private:
  static constexpr int kPoison = 0xab;
#if defined(__SANITIZE_ADDRESS__)
  // The sanitizer guards the end, against reading as well.
  static constexpr std::size_t kGuards = 0;
#else
  static constexpr std::size_t kGuards = 8;
#endif
  Value* data_ = nullptr;
  std::size_t size_;
};

}  // namespace secateur::test
