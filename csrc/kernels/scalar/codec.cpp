#include "kernels/scalar/codec.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/modular.hpp"

namespace pppml::kernels::scalar {
namespace {

float from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// IEEE 754 binary16 to binary32, exact.
float from_half(std::uint16_t half) {
  const std::uint32_t sign = std::uint32_t{half & 0x8000u} << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1f;
  const std::uint32_t fraction = half & 0x3ffu;
  if (exponent == 0x1f) return from_bits(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
  const float subnormal = static_cast<float>(fraction) * 0x1p-24f;
  return sign != 0 ? -subnormal : subnormal;
}

template <class T>
T load(const void* data, std::size_t index) {
  T value;
  std::memcpy(&value, static_cast<const std::uint8_t*>(data) + index * sizeof(T), sizeof(T));
  return value;
}

double load_value(const TensorSpan& span, std::size_t index) {
  switch (span.dtype) {
    case Dtype::kFloat32: return load<float>(span.data, index);
    case Dtype::kFloat64: return load<double>(span.data, index);
    case Dtype::kFloat16: return from_half(load<std::uint16_t>(span.data, index));
    case Dtype::kBfloat16: return from_bits(std::uint32_t{load<std::uint16_t>(span.data, index)} << 16);
  }
  return 0;
}

// x finite. The order of these operations is part of the contract (Codec).
template <class Float>
std::int64_t quantize_one(Float x, Float clip, Float multiplier, std::uint64_t* clipped) {
  *clipped += static_cast<std::uint64_t>(std::fabs(x) > clip);
  const Float inside = std::min(std::max(x, -clip), clip);
  return static_cast<std::int64_t>(std::rint(inside * multiplier));
}

}  // namespace

void quantize(const Codec& codec, const TensorList& tensors, std::size_t first, std::size_t count, std::int64_t* out,
              QuantizeReport* report) {
  std::size_t before = 0, written = 0;
  for (std::size_t s = 0; s < tensors.count && written < count; ++s) {
    const TensorSpan& span = tensors.spans[s];
    const std::size_t begin = first + written - before;
    before += span.length;
    if (first + written >= before) continue;
    for (std::size_t i = begin; i < span.length && written < count; ++i, ++written) {
      const double x = load_value(span, i);
      if (!std::isfinite(x)) {
        report->first_non_finite = std::min<std::uint64_t>(report->first_non_finite, first + written);
        out[written] = 0;
        continue;
      }
      out[written] = codec.single_precision ? quantize_one(static_cast<float>(x), static_cast<float>(codec.clip),
                                                           static_cast<float>(codec.multiplier), &report->clipped)
                                            : quantize_one(x, codec.clip, codec.multiplier, &report->clipped);
    }
  }
}

void restore(const std::int64_t* values, std::size_t count, double step, float* out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<float>(static_cast<double>(values[i]) * step);
}

template <class Word>
void pack_row(const PrimeTable<Word>& prime, const Word* in, std::size_t count, std::uint8_t* out) {
  Uint128 pending = 0;  // fewer than 8 leftover bits and one residue of at most 60
  unsigned held = 0;
  for (std::size_t k = 0; k < count; ++k) {
    pending |= static_cast<Uint128>(in[k]) << held;
    for (held += prime.bits; held >= 8; held -= 8, pending >>= 8) *out++ = static_cast<std::uint8_t>(pending);
  }
  if (held > 0) *out = static_cast<std::uint8_t>(pending);
}

template <class Word>
bool unpack_row(const PrimeTable<Word>& prime, const std::uint8_t* in, std::size_t count, Word* out) {
  const std::uint64_t mask = (std::uint64_t{1} << prime.bits) - 1;
  Uint128 pending = 0;
  unsigned held = 0;
  bool valid = true;
  for (std::size_t k = 0; k < count; ++k) {
    for (; held < prime.bits; held += 8) pending |= static_cast<Uint128>(*in++) << held;
    out[k] = static_cast<Word>(static_cast<std::uint64_t>(pending) & mask);
    valid &= out[k] < prime.modulus;
    pending >>= prime.bits;
    held -= prime.bits;
  }
  return valid && pending == 0;
}

template void pack_row(const PrimeTable<std::uint32_t>&, const std::uint32_t*, std::size_t, std::uint8_t*);
template void pack_row(const PrimeTable<std::uint64_t>&, const std::uint64_t*, std::size_t, std::uint8_t*);
template bool unpack_row(const PrimeTable<std::uint32_t>&, const std::uint8_t*, std::size_t, std::uint32_t*);
template bool unpack_row(const PrimeTable<std::uint64_t>&, const std::uint8_t*, std::size_t, std::uint64_t*);

}  // namespace pppml::kernels::scalar
