#include "kernels/avx512/codec50.hpp"

#include "kernels/avx512/words64.hpp"
#include "kernels/scalar/codec.hpp"

namespace pppml::kernels::avx512 {
namespace {

// Eight values of a contiguous tensor, in the order of operations that Codec states.
class Quantizer64 {
 public:
  explicit Quantizer64(const Codec& codec)
      : single_(codec.single_precision),
        clip_(_mm512_set1_pd(codec.clip)),
        multiplier_(_mm512_set1_pd(codec.multiplier)),
        single_clip_(_mm256_set1_ps(static_cast<float>(codec.clip))),
        single_multiplier_(_mm256_set1_ps(static_cast<float>(codec.multiplier))) {}

  // `lanes` marks the values in use; *infinite gets those that are NaN or Inf, which become zero.
  __m512i quantize(const float* in, __mmask8 lanes, std::uint64_t* clipped, __mmask8* infinite) const {
    const __m256 x = _mm256_maskz_loadu_ps(lanes, in);
    return single_ ? narrow(x, lanes, clipped, infinite) : wide(_mm512_cvtps_pd(x), lanes, clipped, infinite);
  }

  __m512i quantize(const double* in, __mmask8 lanes, std::uint64_t* clipped, __mmask8* infinite) const {
    const __m512d x = _mm512_maskz_loadu_pd(lanes, in);
    return wide(x, lanes, clipped, infinite);
  }

 private:
  static constexpr int kNotFinite = 0x01 | 0x08 | 0x10 | 0x80;  // quiet NaN, +Inf, -Inf, signalling NaN

  __m512i wide(__m512d x, __mmask8 lanes, std::uint64_t* clipped, __mmask8* infinite) const {
    *infinite = _mm512_mask_fpclass_pd_mask(lanes, x, kNotFinite);
    const auto usable = static_cast<__mmask8>(lanes & ~*infinite);
    const __mmask8 outside = _mm512_mask_cmp_pd_mask(usable, _mm512_abs_pd(x), clip_, _CMP_GT_OQ);
    *clipped += static_cast<std::uint64_t>(__builtin_popcount(outside));
    const __m512d low = _mm512_sub_pd(_mm512_setzero_pd(), clip_);
    const __m512d inside = _mm512_min_pd(_mm512_max_pd(x, low), clip_);
    return _mm512_maskz_cvtpd_epi64(usable, _mm512_mul_pd(inside, multiplier_));
  }

  __m512i narrow(__m256 x, __mmask8 lanes, std::uint64_t* clipped, __mmask8* infinite) const {
    *infinite = _mm256_mask_fpclass_ps_mask(lanes, x, kNotFinite);
    const auto usable = static_cast<__mmask8>(lanes & ~*infinite);
    const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
    const __mmask8 outside = _mm256_mask_cmp_ps_mask(usable, size, single_clip_, _CMP_GT_OQ);
    *clipped += static_cast<std::uint64_t>(__builtin_popcount(outside));
    const __m256 low = _mm256_sub_ps(_mm256_setzero_ps(), single_clip_);
    const __m256 inside = _mm256_min_ps(_mm256_max_ps(x, low), single_clip_);
    return _mm512_maskz_cvtepi32_epi64(usable, _mm256_cvtps_epi32(_mm256_mul_ps(inside, single_multiplier_)));
  }

  bool single_;
  __m512d clip_, multiplier_;
  __m256 single_clip_, single_multiplier_;
};

template <class Float>
void quantize_contiguous(const Quantizer64& quantizer, const Float* in, std::size_t count, std::size_t flat_index,
                         std::int64_t* out, QuantizeReport* report) {
  std::uint64_t clipped = 0;
  for_words(count, [&](std::size_t i, __mmask8 lanes) {
    __mmask8 infinite = 0;
    _mm512_mask_storeu_epi64(out + i, lanes, quantizer.quantize(in + i, lanes, &clipped, &infinite));
    if (infinite != 0) {
      const std::uint64_t index = flat_index + i + static_cast<unsigned>(__builtin_ctz(infinite));
      report->first_non_finite = std::min(report->first_non_finite, index);
    }
  });
  report->clipped += clipped;
}

// Values [first, first + count), all of one span and beginning with its element `begin`.
void quantize_span(const Message& message, const Quantizer64& quantizer, const TensorSpan& span, std::size_t begin,
                   std::size_t first, std::size_t count, std::int64_t* out) {
  const Codec& codec = *message.codec;
  const bool plain =
      codec.rounding == Rounding::kNearest && message.reference.count == 0 && span.row_length == span.length;
  if (plain && span.dtype == Dtype::kFloat32) {
    const float* in = static_cast<const float*>(span.data) + begin;
    quantize_contiguous(quantizer, in, count, first, out, message.report);
  } else if (plain && span.dtype == Dtype::kFloat64 && !codec.single_precision) {
    const double* in = static_cast<const double*>(span.data) + begin;
    quantize_contiguous(quantizer, in, count, first, out, message.report);
  } else {
    scalar::quantize(message, first, count, out);
  }
}

constexpr unsigned kFastBits = 50;
constexpr std::size_t kFastBytes = 50;  // of eight 50-bit residues
constexpr std::uint64_t kFastMask = (std::uint64_t{1} << kFastBytes) - 1;

// Residue i begins at bit 50 i = 8 (50 i / 8) + 2 (i mod 4): shifted left by its second part it takes seven whole
// bytes, of which the first is shared with the residue before it and the last with the one behind.
struct Layout {
  alignas(64) std::uint8_t even[64], odd[64], residue[64];
  std::uint64_t even_bytes, odd_bytes, residue_bytes;
};

constexpr Layout make_layout() {
  Layout layout{};
  for (unsigned i = 0; i < kLanes64; ++i) {
    const unsigned first = kFastBits * i / 8, last = (kFastBits * (i + 1) - 1) / 8;
    for (unsigned at = first; at <= last; ++at) {
      const unsigned byte = 8 * i + at - first;
      (i % 2 == 0 ? layout.even : layout.odd)[at] = static_cast<std::uint8_t>(byte);
      (i % 2 == 0 ? layout.even_bytes : layout.odd_bytes) |= std::uint64_t{1} << at;
      layout.residue[byte] = static_cast<std::uint8_t>(at);
      layout.residue_bytes |= std::uint64_t{1} << byte;
    }
  }
  return layout;
}

constexpr Layout kLayout = make_layout();

__m512i shifts() {
  return _mm512_set_epi64(6, 4, 2, 0, 6, 4, 2, 0);
}

}  // namespace

void quantize64(const Message& message, std::size_t first, std::size_t count, std::int64_t* out) {
  const Quantizer64 quantizer(*message.codec);
  std::size_t span_start = 0, written = 0;
  for (std::size_t s = 0; s < message.tensors.count && written < count; ++s) {
    const TensorSpan& span = message.tensors.spans[s];
    const std::size_t span_end = span_start + span.length;
    if (first + written < span_end) {
      const std::size_t begin = first + written - span_start;
      const std::size_t take = std::min(span.length - begin, count - written);
      quantize_span(message, quantizer, span, begin, first + written, take, out + written);
      written += take;
    }
    span_start = span_end;
  }
  std::fill(out + written, out + count, 0);
}

void pack_row(const PrimeTable<std::uint64_t>& prime, const std::uint64_t* in, std::size_t count, std::uint8_t* out) {
  std::size_t k = 0;
  if (prime.bits == kFastBits) {
    const __m512i even = _mm512_load_si512(kLayout.even), odd = _mm512_load_si512(kLayout.odd);
    for (; k + kLanes64 <= count; k += kLanes64, out += kFastBytes) {
      const __m512i residues = _mm512_sllv_epi64(_mm512_loadu_si512(in + k), shifts());
      const __m512i bytes = _mm512_or_si512(_mm512_maskz_permutexvar_epi8(kLayout.even_bytes, even, residues),
                                            _mm512_maskz_permutexvar_epi8(kLayout.odd_bytes, odd, residues));
      _mm512_mask_storeu_epi8(out, kFastMask, bytes);
    }
  }
  if (k < count) scalar::pack_row(prime, in + k, count - k, out);
}

bool unpack_row(const PrimeTable<std::uint64_t>& prime, const std::uint8_t* in, std::size_t count, std::uint64_t* out) {
  std::size_t k = 0;
  __mmask8 invalid = 0;
  if (prime.bits == kFastBits) {
    const __m512i where = _mm512_load_si512(kLayout.residue);
    const __m512i low = _mm512_set1_epi64((std::int64_t{1} << kFastBits) - 1);
    const __m512i q = _mm512_set1_epi64(static_cast<std::int64_t>(prime.modulus));
    for (; k + kLanes64 <= count; k += kLanes64, in += kFastBytes) {
      const __m512i bytes = _mm512_maskz_loadu_epi8(kFastMask, in);
      const __m512i items = _mm512_maskz_permutexvar_epi8(kLayout.residue_bytes, where, bytes);
      const __m512i residues = _mm512_and_si512(_mm512_srlv_epi64(items, shifts()), low);
      invalid = static_cast<__mmask8>(invalid | _mm512_cmpge_epu64_mask(residues, q));
      _mm512_storeu_si512(out + k, residues);
    }
  }
  const bool rest = k == count || scalar::unpack_row(prime, in, count - k, out + k);
  return rest && invalid == 0;
}

}  // namespace pppml::kernels::avx512
