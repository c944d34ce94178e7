#include "kernels/scalar/codec.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/buffer.hpp"
#include "base/modular.hpp"
#include "kernels/scalar/stream.hpp"

namespace pppml::kernels::scalar {
namespace {

float from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

std::uint32_t where(bool condition, std::uint32_t bits) {
  return bits & (std::uint32_t{0} - static_cast<std::uint32_t>(condition));
}

// IEEE 754 binary16 to binary32, exact. No branch: the exponents of weights are secret.
float from_half(std::uint16_t half) {
  const std::uint32_t exponent = (half >> 10) & 0x1f;
  const std::uint32_t fraction = half & 0x3ffu;
  const float small = static_cast<float>(fraction) * 0x1p-24f;
  std::uint32_t subnormal;
  std::memcpy(&subnormal, &small, sizeof subnormal);
  const std::uint32_t biased = exponent + 112 + where(exponent == 0x1f, 0xff - 0x1f - 112);
  const std::uint32_t size = where(exponent == 0, subnormal) | where(exponent != 0, biased << 23 | fraction << 13);
  return from_bits(std::uint32_t{half & 0x8000u} << 16 | size);
}

template <class T>
T load(const void* data, std::size_t index) {
  T value;
  std::memcpy(&value, static_cast<const std::uint8_t*>(data) + index * sizeof(T), sizeof(T));
  return value;
}

double load_value(const TensorSpan& span, std::size_t index) {
  const std::size_t at = index / span.row_length * span.row_stride + index % span.row_length;
  switch (span.dtype) {
    case Dtype::kFloat32: return load<float>(span.data, at);
    case Dtype::kFloat64: return load<double>(span.data, at);
    case Dtype::kFloat16: return from_half(load<std::uint16_t>(span.data, at));
    case Dtype::kBfloat16: return from_bits(std::uint32_t{load<std::uint16_t>(span.data, at)} << 16);
  }
  return 0;
}

// Elements that stand side by side, without a look at the type of each.
void load_run(const TensorSpan& span, std::size_t begin, std::size_t count, double* out) {
  if (span.row_length == span.length && span.dtype == Dtype::kFloat32) {
    for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<double>(load<float>(span.data, begin + i));
  } else if (span.row_length == span.length && span.dtype == Dtype::kFloat64) {
    for (std::size_t i = 0; i < count; ++i) out[i] = load<double>(span.data, begin + i);
  } else {
    for (std::size_t i = 0; i < count; ++i) out[i] = load_value(span, begin + i);
  }
}

// Elements [first, first + count) of the flat vector; returns how many of them there are.
std::size_t gather(const TensorList& tensors, std::size_t first, std::size_t count, double* out) {
  std::size_t before = 0, written = 0;
  for (std::size_t s = 0; s < tensors.count && written < count; ++s) {
    const TensorSpan& span = tensors.spans[s];
    const std::size_t begin = first + written - before;
    before += span.length;
    if (first + written >= before) continue;
    const std::size_t take = std::min(span.length - begin, count - written);
    load_run(span, begin, take, out + written);
    written += take;
  }
  return written;
}

float uniform_below_one(float, std::uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}
double uniform_below_one(double, std::uint32_t word) {
  return static_cast<double>(word) * 0x1p-32;
}

// One value in the order of operations that Codec states; false when the difference is not a number.
template <class Float>
bool quantize_one(const Codec& codec, double value, double reference, std::uint32_t word, std::uint64_t* clipped,
                  std::int64_t* out) {
  const Float x = static_cast<Float>(value) - static_cast<Float>(reference);
  const Float clip = static_cast<Float>(codec.clip);
  if (!std::isfinite(value) || !std::isfinite(reference) || std::isnan(x)) return false;
  *clipped += static_cast<std::uint64_t>(std::fabs(x) > clip);
  const Float scaled = std::min(std::max(x, -clip), clip) * static_cast<Float>(codec.multiplier);
  if (codec.rounding == Rounding::kNearest) {
    *out = static_cast<std::int64_t>(std::rint(scaled));
  } else {
    const Float below = std::floor(scaled);
    const bool up = uniform_below_one(scaled, word) < scaled - below;
    *out = static_cast<std::int64_t>(below) + static_cast<std::int64_t>(up);
  }
  return true;
}

// Where one of `count` values is not finite: names the first, makes zeros of all, and says true.
bool refuse_values(const Message& message, std::size_t first, std::size_t count, const double* references,
                   double* values) {
  SecretBuffer<double> raw(count);
  gather(message.tensors, first, count, raw.data());
  std::size_t i = 0;
  while (i < count && std::isfinite(raw[i]) && std::isfinite(references[i])) ++i;
  if (i == count) return false;  // the difference of two finite numbers exceeds its type: it is clipped
  message.report->first_non_finite = std::min<std::uint64_t>(message.report->first_non_finite, first + i);
  std::fill(values, values + count, 0.0);
  return true;
}

// x <- x - reference within [-clip, clip]; counts what was not, and says whether all were finite. A loop of comparisons
// and masks alone, which compilers turn into vectors.
bool clip_differences(double clip, std::size_t count, const double* references, double* x, std::uint64_t* clipped) {
  std::uint64_t beyond = 0, infinite = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double difference = x[i] - references[i], magnitude = std::fabs(difference);
    beyond += static_cast<std::uint64_t>(magnitude > clip);
    infinite |= static_cast<std::uint64_t>(!(magnitude <= std::numeric_limits<double>::max()));
    const double capped = difference > clip ? clip : difference;
    x[i] = capped < -clip ? -clip : capped;
  }
  *clipped = beyond;
  return infinite == 0;
}

constexpr std::size_t kChunkValues = 256;

}  // namespace

void quantize(const Message& message, std::size_t first, std::size_t count, std::int64_t* out) {
  const Codec& codec = *message.codec;
  const auto one = codec.single_precision ? quantize_one<float> : quantize_one<double>;
  SecretBuffer<double> values(kChunkValues), references(kChunkValues);
  SecretBuffer<std::uint32_t> words(kChunkValues);
  for (std::size_t done = 0; done < count;) {
    const std::size_t at = first + done, in_block = at % codec.block_values;
    const std::size_t step = std::min({count - done, kChunkValues, codec.block_values - in_block});
    const std::size_t present = gather(message.tensors, at, step, values.data());
    if (message.reference.count > 0) gather(message.reference, at, step, references.data());
    if (codec.rounding == Rounding::kStochastic) {
      stream(message.rounding, static_cast<std::uint32_t>(Lane::kRounding), at / codec.block_values, in_block, step,
             words.data());
    }
    for (std::size_t i = 0; i < step; ++i) {
      std::int64_t value = 0;
      if (i < present && !one(codec, values[i], references[i], words[i], &message.report->clipped, &value)) {
        message.report->first_non_finite = std::min<std::uint64_t>(message.report->first_non_finite, at + i);
      }
      out[done + i] = value;
    }
    done += step;
  }
}

void load_values(const Message& message, std::size_t first, std::size_t count, double* out) {
  const double clip = message.codec->clip;
  SecretBuffer<double> references(kChunkValues);
  for (std::size_t done = 0; done < count;) {
    const std::size_t at = first + done, step = std::min(count - done, kChunkValues);
    double* const x = out + done;
    const std::size_t present = gather(message.tensors, at, step, x);
    if (message.reference.count > 0) gather(message.reference, at, step, references.data());
    std::uint64_t clipped = 0;
    const bool finite = clip_differences(clip, present, references.data(), x, &clipped);
    if (finite || !refuse_values(message, at, present, references.data(), x)) message.report->clipped += clipped;
    std::fill(x + present, x + step, 0.0);
    done += step;
  }
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
