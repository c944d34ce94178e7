// What goes to a device beside tensors: plain values, keys and lists of tensors, in one copy.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "base/buffer.hpp"
#include "base/check.hpp"
#include "ckks/device_scheme.hpp"

namespace pppml::ckks {

// Plain values on their way to a device: laid out side by side, copied at once, wiped on both sides.
class Parcel {
 public:
  explicit Parcel(std::size_t bytes) : host_(bytes) {}

  // Space for `count` values; `fill` writes them. Returns where they will be found, once sent.
  template <class T>
  T* reserve(std::size_t count) {
    used_ = (used_ + kAlignment - 1) / kAlignment * kAlignment;
    T* const place = reinterpret_cast<T*>(host_.data() + used_);
    used_ += count * sizeof(T);
    require(used_ <= host_.size(), "a parcel for the device was taken for smaller than it is");
    return place;
  }
  void send(Stream stream, kernels::cuda::Secrecy secrecy) {
    device_ = std::make_unique<kernels::cuda::DeviceMemory>(stream, used_, secrecy);
    kernels::cuda::copy_to_device(stream, device_->data(), host_.data(), used_);
  }
  // The device's place of what `reserve` gave.
  template <class T>
  T* sent(T* place) const {
    return reinterpret_cast<T*>(static_cast<std::uint8_t*>(device_->data()) +
                                (reinterpret_cast<const std::uint8_t*>(place) - host_.data()));
  }

  // Bytes that so many values take at most.
  template <class T>
  static std::size_t room(std::size_t count) {
    return count * sizeof(T) + kAlignment;
  }

 private:
  static constexpr std::size_t kAlignment = 16;

  SecretBuffer<std::uint8_t> host_;
  std::size_t used_ = 0;
  std::unique_ptr<kernels::cuda::DeviceMemory> device_;
};

// Spans of the tensors that hold something, and one that ends them.
inline std::vector<kernels::cuda::DeviceSpan> spans_of(const std::vector<DeviceTensor>& tensors, std::uint64_t first) {
  std::vector<kernels::cuda::DeviceSpan> spans;
  for (const DeviceTensor& tensor : tensors) {
    if (tensor.length > 0) spans.push_back({tensor.data, first, tensor.dtype});
    first += tensor.length;
  }
  spans.push_back({nullptr, first, kernels::Dtype::kFloat32});
  require(spans.size() < UINT32_MAX, "more than 2^32 tensors");
  return spans;
}

inline kernels::cuda::DeviceTensors place_spans(Parcel& parcel, const std::vector<kernels::cuda::DeviceSpan>& spans) {
  auto* const place = parcel.reserve<kernels::cuda::DeviceSpan>(spans.size());
  std::copy(spans.begin(), spans.end(), place);
  return {place, static_cast<std::uint32_t>(spans.size() - 1)};
}

inline std::uint64_t length_of(const std::vector<DeviceTensor>& tensors) {
  std::uint64_t length = 0;
  for (const DeviceTensor& tensor : tensors) length += tensor.length;
  return length;
}

}  // namespace pppml::ckks
