#include "kernels/avx512/codec32.hpp"

#include <algorithm>

#include "base/buffer.hpp"
#include "kernels/avx512/lanes.hpp"
#include "kernels/scalar/codec.hpp"

namespace pppml::kernels::avx512 {
namespace {

// Contiguous float32 values, in the order of operations that Codec states.
class FloatQuantizer {
 public:
  explicit FloatQuantizer(const Codec& codec)
      : clip_(_mm512_set1_ps(static_cast<float>(codec.clip))),
        negative_clip_(_mm512_set1_ps(-static_cast<float>(codec.clip))),
        multiplier_(_mm512_set1_ps(static_cast<float>(codec.multiplier))) {}

  // `lanes` marks the values in use; *infinite gets those that are NaN or Inf, which become zero.
  Vector quantize(__m512 x, __mmask16 lanes, std::uint64_t* clipped, __mmask16* infinite) const {
    constexpr int kNotFinite = 0x01 | 0x08 | 0x10 | 0x80;  // quiet NaN, +Inf, -Inf, signalling NaN
    *infinite = _mm512_mask_fpclass_ps_mask(lanes, x, kNotFinite);
    const __mmask16 usable = static_cast<__mmask16>(lanes & ~*infinite);
    const __mmask16 outside = _mm512_mask_cmp_ps_mask(usable, _mm512_abs_ps(x), clip_, _CMP_GT_OQ);
    *clipped += static_cast<std::uint64_t>(__builtin_popcount(outside));
    const __m512 inside = _mm512_min_ps(_mm512_max_ps(x, negative_clip_), clip_);
    return _mm512_maskz_cvtps_epi32(usable, _mm512_mul_ps(inside, multiplier_));
  }

 private:
  __m512 clip_, negative_clip_, multiplier_;
};

void quantize_floats(const FloatQuantizer& quantizer, const float* in, std::size_t count, std::size_t flat_index,
                     std::int32_t* out, QuantizeReport* report) {
  for (std::size_t i = 0; i < count; i += kLanes) {
    const std::size_t left = std::min(count - i, kLanes);
    const auto lanes = static_cast<__mmask16>((std::uint32_t{1} << left) - 1);
    __mmask16 infinite = 0;
    const Vector values = quantizer.quantize(_mm512_maskz_loadu_ps(lanes, in + i), lanes, &report->clipped, &infinite);
    _mm512_mask_storeu_epi32(out + i, lanes, values);
    if (infinite != 0) {
      const std::uint64_t index = flat_index + i + static_cast<unsigned>(__builtin_ctz(infinite));
      report->first_non_finite = std::min(report->first_non_finite, index);
    }
  }
}

constexpr unsigned kFastBits = 31;
constexpr std::size_t kFastBytes = 62;  // of sixteen 31-bit residues

}  // namespace

void quantize32(const Message& message, std::size_t first, std::size_t count, std::int32_t* out) {
  const FloatQuantizer quantizer(*message.codec);
  const TensorList& tensors = message.tensors;
  std::size_t span_start = 0, written = 0;
  for (std::size_t s = 0; s < tensors.count && written < count; ++s) {
    const TensorSpan& span = tensors.spans[s];
    const std::size_t span_end = span_start + span.length;
    if (first + written < span_end) {
      const std::size_t begin = first + written - span_start;
      const std::size_t take = std::min(span.length - begin, count - written);
      const bool simple = span.dtype == Dtype::kFloat32 && span.row_length == span.length &&
                          message.reference.count == 0 && message.codec->rounding == Rounding::kNearest;
      if (simple) {
        quantize_floats(quantizer, static_cast<const float*>(span.data) + begin, take, first + written, out + written,
                        message.report);
      } else {
        SecretBuffer<std::int64_t> wide(take);
        scalar::quantize(message, first + written, take, wide.data());
        for (std::size_t i = 0; i < take; ++i) out[written + i] = static_cast<std::int32_t>(wide[i]);
      }
      written += take;
    }
    span_start = span_end;
  }
  std::fill(out + written, out + count, 0);
}

// Two residues make one 62-bit item per 64-bit lane; lane j of the output takes the low bits of item j from bit 2 j on
// and fills up with the next item.
void pack_row(const PrimeTable<std::uint32_t>& prime, const std::uint32_t* in, std::size_t count, std::uint8_t* out) {
  std::size_t k = 0;
  if (prime.bits == kFastBits) {
    const Vector right = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
    const Vector left = _mm512_set_epi64(64, 50, 52, 54, 56, 58, 60, 62);
    const Vector low = _mm512_set1_epi64(0xffffffff);
    for (; k + kLanes <= count; k += kLanes, out += kFastBytes) {
      const Vector v = load(in + k);
      const Vector items = _mm512_or_si512(_mm512_and_si512(v, low), _mm512_slli_epi64(_mm512_srli_epi64(v, 32), 31));
      const Vector next = _mm512_alignr_epi64(items, items, 1);
      const Vector bytes = _mm512_or_si512(_mm512_srlv_epi64(items, right), _mm512_sllv_epi64(next, left));
      _mm512_mask_storeu_epi8(out, (std::uint64_t{1} << kFastBytes) - 1, bytes);
    }
  }
  if (k < count) scalar::pack_row(prime, in + k, count - k, out);
}

bool unpack_row(const PrimeTable<std::uint32_t>& prime, const std::uint8_t* in, std::size_t count, std::uint32_t* out) {
  std::size_t k = 0;
  __mmask16 invalid = 0;
  if (prime.bits == kFastBits) {
    const Vector q = broadcast(prime.modulus);
    const Vector left = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
    const Vector right = _mm512_set_epi64(50, 52, 54, 56, 58, 60, 62, 64);
    const Vector low31 = _mm512_set1_epi64(0x7fffffff), high31 = _mm512_set1_epi64(0x7fffffff00000000);
    for (; k + kLanes <= count; k += kLanes, in += kFastBytes) {
      const Vector bytes = _mm512_maskz_loadu_epi8((std::uint64_t{1} << kFastBytes) - 1, in);
      const Vector previous = _mm512_alignr_epi64(bytes, bytes, 7);
      const Vector items = _mm512_or_si512(_mm512_sllv_epi64(bytes, left), _mm512_srlv_epi64(previous, right));
      const Vector residues =
          _mm512_or_si512(_mm512_and_si512(items, low31), _mm512_and_si512(_mm512_slli_epi64(items, 1), high31));
      invalid = static_cast<__mmask16>(invalid | _mm512_cmpge_epu32_mask(residues, q));
      store(out + k, residues);
    }
  }
  const bool rest = k == count || scalar::unpack_row(prime, in, count - k, out + k);
  return rest && invalid == 0;
}

}  // namespace pppml::kernels::avx512
