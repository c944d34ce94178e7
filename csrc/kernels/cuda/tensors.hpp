// Elements of the flat vector that a list of device tensors makes up: found, read, written.
#pragma once

#include <cmath>

#include "kernels/cuda/requests.hpp"

namespace pppml::kernels::cuda {

// The spans of a list that a block of weights touches.
struct SpanWindow {
  std::uint32_t first, last;
};

// What one thread contributes to the search for elements `first` and `last`: every span is looked at by one thread.
template <unsigned kThreads>
PPPML_HD void find_window(const DeviceTensors& tensors, std::uint64_t first, std::uint64_t last, unsigned thread,
                          SpanWindow* window) {
  PPPML_NO_UNROLL
  for (std::uint32_t s = thread; s < tensors.count; s += kThreads) {
    const std::uint64_t begin = tensors.spans[s].offset, end = tensors.spans[s + 1].offset;
    if (begin <= first && first < end) window->first = s;
    if (begin <= last && last < end) window->last = s;
  }
}

// The span of a window that holds an element.
PPPML_HD std::uint32_t span_of(const DeviceTensors& tensors, const SpanWindow& window, std::uint64_t index) {
  std::uint32_t low = window.first, high = window.last;
  while (low < high) {
    const std::uint32_t middle = low + (high - low + 1) / 2;
    if (tensors.spans[middle].offset <= index) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

template <class To, class From>
PPPML_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// IEEE 754 binary16 to binary32, exact, without a branch.
PPPML_HD float half_to_float(std::uint16_t half) {
  const std::uint32_t exponent = (half >> 10) & 0x1fu, fraction = half & 0x3ffu;
  const std::uint32_t subnormal = bit_cast<std::uint32_t>(static_cast<float>(fraction) * 0x1p-24f);
  const std::uint32_t biased = exponent + 112 + (exponent == 0x1f ? 0xff - 0x1f - 112 : 0);
  const std::uint32_t size = exponent == 0 ? subnormal : (biased << 23 | fraction << 13);
  return bit_cast<float>(std::uint32_t{half & 0x8000u} << 16 | size);
}

PPPML_HD float bfloat16_to_float(std::uint16_t bits) {
  return bit_cast<float>(std::uint32_t{bits} << 16);
}

// Nearest, ties to even. The last bit kept decides a tie; NaN does not occur.
PPPML_HD std::uint16_t float_to_bfloat16(float value) {
  const auto bits = bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Nearest, ties to even, from float64 at once: rounding twice would differ. NaN does not occur.
PPPML_HD std::uint16_t double_to_half(double value) {
  const auto bits = bit_cast<std::uint64_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 48 & 0x8000);
  const int exponent = static_cast<int>(bits >> 52 & 0x7ff) - 1023;
  if (exponent > 15) return sign | 0x7c00;
  if (exponent < -25) return sign;
  // Below 2^-14 one bit more falls off per octave. A carry out of the fraction raises the exponent, as it should.
  const int dropped = 42 + (exponent < -14 ? -14 - exponent : 0);
  const std::uint64_t significand = (bits & 0xfffffffffffffull) | 1ull << 52;
  const std::uint64_t half = 1ull << (dropped - 1), kept = significand >> dropped;
  const std::uint64_t rest = significand & ((1ull << dropped) - 1);
  const std::uint64_t rounded = kept + (rest > half || (rest == half && (kept & 1) != 0) ? 1 : 0);
  const std::uint64_t biased = exponent < -14 ? 0 : static_cast<std::uint64_t>(exponent + 14) << 10;
  return static_cast<std::uint16_t>(sign | (biased + rounded));
}

// Element `at` of a span, rounded to Float; *finite is cleared where it is NaN or Inf.
template <class Float>
PPPML_HD Float load_element(const DeviceSpan& span, std::uint64_t at, bool* finite) {
  if (span.dtype == Dtype::kFloat64) {
    const double value = static_cast<const double*>(span.data)[at];
    if (!(value - value == 0)) *finite = false;
    return static_cast<Float>(value);
  }
  float value;
  if (span.dtype == Dtype::kFloat32) {
    value = static_cast<const float*>(span.data)[at];
  } else {
    const std::uint16_t bits = static_cast<const std::uint16_t*>(span.data)[at];
    value = span.dtype == Dtype::kFloat16 ? half_to_float(bits) : bfloat16_to_float(bits);
  }
  if (!(value - value == 0)) *finite = false;
  return static_cast<Float>(value);
}

// float32 by way of float64, float16 from float64, bfloat16 from float32: what the host's path gives for each.
PPPML_HD void store_element(const DeviceSpan& span, std::uint64_t at, double value) {
  switch (span.dtype) {
    case Dtype::kFloat64: static_cast<double*>(span.data)[at] = value; break;
    case Dtype::kFloat32: static_cast<float*>(span.data)[at] = static_cast<float>(value); break;
    case Dtype::kFloat16: static_cast<std::uint16_t*>(span.data)[at] = double_to_half(value); break;
    case Dtype::kBfloat16:
      static_cast<std::uint16_t*>(span.data)[at] = float_to_bfloat16(static_cast<float>(value));
      break;
  }
}

}  // namespace pppml::kernels::cuda
