#include "kernels/avx512/quantizer.hpp"

#include <algorithm>
#include <limits>

#include "kernels/avx512/floats.hpp"

namespace pppml::kernels::avx512 {
namespace {

// To the nearest integer, zero outside `lanes`. Values of a single precision codec stay below 2^23.
__m512i to_integers(__mmask16 lanes, __m512 v) {
  return _mm512_maskz_cvtps_epi32(lanes, v);
}
__m512i to_integers(__mmask8 lanes, __m512d v) {
  return _mm512_maskz_cvtpd_epi64(lanes, v);
}

// v + 1 where `lanes` are set
__m512i increment(__mmask16 lanes, __m512i v) {
  return _mm512_mask_add_epi32(v, lanes, v, _mm512_set1_epi32(1));
}
__m512i increment(__mmask8 lanes, __m512i v) {
  return _mm512_mask_add_epi64(v, lanes, v, _mm512_set1_epi64(1));
}

void store_part(std::int32_t* out, __mmask16 lanes, __m512i v) {
  _mm512_mask_storeu_epi32(out, lanes, v);
}
void store_part(std::int64_t* out, __mmask8 lanes, __m512i v) {
  _mm512_mask_storeu_epi64(out, lanes, v);
}
void store_part(std::int64_t* out, __mmask16 lanes, __m512i v) {
  store_part(out, static_cast<__mmask8>(lanes), _mm512_cvtepi32_epi64(_mm512_castsi512_si256(v)));
  store_part(out + 8, static_cast<__mmask8>(lanes >> 8), _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(v, 1)));
}

// Thresholds of stochastic rounding.
__m512 uniform_below_one(const std::uint32_t* words, __mmask16 lanes) {
  const __m512i w = _mm512_srli_epi32(_mm512_maskz_loadu_epi32(lanes, words), 8);
  return _mm512_mul_ps(_mm512_cvtepi32_ps(w), _mm512_set1_ps(0x1p-24f));
}
__m512d uniform_below_one(const std::uint32_t* words, __mmask8 lanes) {
  return _mm512_mul_pd(_mm512_cvtepu32_pd(_mm256_maskz_loadu_epi32(lanes, words)), _mm512_set1_pd(0x1p-32));
}

}  // namespace

template <class Float>
template <bool kStochastic, class Int>
void FloatQuantizer<Float>::quantize(const ValueRun<Float>& run, std::size_t at, const std::uint32_t* words, Int* out) {
  using Limits = std::numeric_limits<Float>;
  const auto clip = every_lane(static_cast<Float>(message_.codec->clip));
  const auto negative_clip = every_lane(-static_cast<Float>(message_.codec->clip));
  const auto multiplier = every_lane(static_cast<Float>(message_.codec->multiplier));
  const auto largest = every_lane(run.converted ? Limits::infinity() : Limits::max());
  std::uint64_t clipped = 0;
  for_lanes<Float>(run.count, [&](std::size_t i, auto lanes) {
    using Mask = decltype(lanes);
    const auto x = load_part(run.values + i, lanes);
    const auto size = magnitude(x);
    const Mask refused = greater_or_nan(lanes, size, largest);
    const Mask usable = static_cast<Mask>(lanes & ~refused);
    clipped += static_cast<std::uint64_t>(__builtin_popcount(greater(usable, size, clip)));
    const auto scaled = multiply(clamp(x, negative_clip, clip), multiplier);
    if constexpr (kStochastic) {
      const auto below = round_down(scaled);
      const Mask up = greater(usable, subtract(scaled, below), uniform_below_one(words + i, lanes));
      store_part(out + i, lanes, increment(up, to_integers(usable, below)));
    } else {
      store_part(out + i, lanes, to_integers(usable, scaled));
    }
    if (refused != 0) {
      const std::uint64_t index = at + i + static_cast<unsigned>(__builtin_ctz(refused));
      message_.report->first_non_finite = std::min(message_.report->first_non_finite, index);
    }
  });
  message_.report->clipped += clipped;
}

template <class Float>
template <class Int>
void FloatQuantizer<Float>::write(std::size_t first, std::size_t count, Int* out) {
  const Codec& codec = *message_.codec;
  const std::size_t last = first + count;
  if (rounding_ && words_.size() == 0) words_ = SecretBuffer<std::uint32_t>(kChunkValues);
  for (std::size_t at = first; at < last;) {
    // The words of a chunk come from one stream: it ends with the block.
    const std::size_t in_block = at % codec.block_values;
    const std::size_t end = at + std::min({last - at, kChunkValues, codec.block_values - in_block});
    if (rounding_) {
      const auto lane = static_cast<std::uint32_t>(Lane::kRounding);
      rounding_->read(lane, at / codec.block_values, in_block, end - at, words_.data());
    }
    const std::uint32_t* words = words_.data();
    while (at < end) {
      const ValueRun<Float> run =
          message_.reference.count == 0 ? tensors_.next(at, end - at) : tensors_.gather_less(reference_, at, end - at);
      if (run.count == 0) return std::fill(out, out + (last - at), Int{0});
      if (rounding_) {
        quantize<true>(run, at, words, out);
        words += run.count;
      } else {
        quantize<false>(run, at, nullptr, out);
      }
      at += run.count;
      out += run.count;
    }
  }
}

Quantizer::Quantizer(const Message& message) {
  if (message.codec->single_precision) {
    single_.emplace(message);
  } else {
    double_.emplace(message);
  }
}

void Quantizer::write(std::size_t first, std::size_t count, std::int32_t* out) {
  single_->write(first, count, out);
}

void Quantizer::write(std::size_t first, std::size_t count, std::int64_t* out) {
  if (single_) return single_->write(first, count, out);
  double_->write(first, count, out);
}

void Quantizer::announce(std::size_t first, std::size_t count, Prefetcher& soon) {
  if (single_) return single_->announce(first, count, soon);
  double_->announce(first, count, soon);
}

void quantize(const Message& message, std::size_t first, std::size_t count, std::int64_t* out) {
  Quantizer(message).write(first, count, out);
}

}  // namespace pppml::kernels::avx512
