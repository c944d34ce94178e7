#include "kernels/avx2/codec32.hpp"

#include <algorithm>
#include <optional>

#include "base/buffer.hpp"
#include "kernels/avx2/streams.hpp"
#include "kernels/scalar/codec.hpp"

namespace pppml::kernels::avx2 {
namespace {

inline __m256 load_floats(const float* p, AllLanes) {
  return _mm256_loadu_ps(p);
}
inline __m256 load_floats(const float* p, FirstLanes lanes) {
  return _mm256_maskload_ps(p, lanes.mask);
}

unsigned lane_bits(Vector mask) {
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(mask)));
}

// Consecutive float32 values of a message, in the order of operations that Codec states. Lanes that are not used read
// as zero: finite, and inside every clip.
class FloatQuantizer {
 public:
  explicit FloatQuantizer(const Codec& codec)
      : clip_(_mm256_set1_ps(static_cast<float>(codec.clip))),
        multiplier_(_mm256_set1_ps(static_cast<float>(codec.multiplier))) {}

  // *bad gets non-zero lanes where `value` or `reference` is NaN or Inf; the result there is zero.
  __m256 scale(__m256 value, __m256 reference, std::uint64_t* clipped, Vector* bad) const {
    *bad = _mm256_or_si256(not_finite(value), not_finite(reference));
    const __m256 x = _mm256_sub_ps(value, reference);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256 outside = _mm256_cmp_ps(_mm256_andnot_ps(sign, x), clip_, _CMP_GT_OQ);
    const unsigned counted = lane_bits(_mm256_andnot_si256(*bad, _mm256_castps_si256(outside)));
    *clipped += static_cast<std::uint64_t>(__builtin_popcount(counted));
    const __m256 inside = _mm256_min_ps(_mm256_max_ps(x, _mm256_xor_ps(clip_, sign)), clip_);
    return _mm256_andnot_ps(_mm256_castsi256_ps(*bad), _mm256_mul_ps(inside, multiplier_));
  }

  static Vector nearest(__m256 scaled) { return _mm256_cvtps_epi32(scaled); }

  static Vector stochastic(__m256 scaled, Vector words) {
    const __m256 below = _mm256_floor_ps(scaled);
    const __m256 uniform = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_srli_epi32(words, 8)), _mm256_set1_ps(0x1p-24f));
    const __m256 up = _mm256_cmp_ps(uniform, _mm256_sub_ps(scaled, below), _CMP_LT_OQ);
    return _mm256_sub_epi32(_mm256_cvttps_epi32(below), _mm256_castps_si256(up));
  }

 private:
  static Vector not_finite(__m256 x) {
    const Vector magnitude = _mm256_and_si256(_mm256_castps_si256(x), broadcast(0x7fffffff));
    return _mm256_cmpgt_epi32(magnitude, broadcast(0x7f7fffff));
  }

  __m256 clip_, multiplier_;
};

// Consecutive float32 elements of a flat vector from one index on; null where they are of another type.
struct Run {
  const float* data;
  std::size_t length;
};

Run run_at(const TensorList& tensors, std::size_t index) {
  for (std::size_t s = 0; s < tensors.count; ++s) {
    const TensorSpan& span = tensors.spans[s];
    if (index < span.length) {
      if (span.dtype != Dtype::kFloat32) return {nullptr, span.length - index};
      const std::size_t row = index / span.row_length, column = index % span.row_length;
      return {static_cast<const float*>(span.data) + row * span.row_stride + column, span.row_length - column};
    }
    index -= span.length;
  }
  return {nullptr, 0};
}

// `reference` and `words` may be null.
void quantize_run(const FloatQuantizer& quantizer, const float* values, const float* reference,
                  const std::uint32_t* words, std::size_t count, std::size_t index, std::int32_t* out,
                  QuantizeReport* report) {
  for_lanes(count, [&](std::size_t k, auto lanes) {
    const __m256 other = reference != nullptr ? load_floats(reference + k, lanes) : _mm256_setzero_ps();
    Vector bad;
    const __m256 scaled = quantizer.scale(load_floats(values + k, lanes), other, &report->clipped, &bad);
    store(out + k, lanes,
          words != nullptr ? FloatQuantizer::stochastic(scaled, load(words + k, lanes))
                           : FloatQuantizer::nearest(scaled));
    if (const unsigned bits = lane_bits(bad); bits != 0) {
      const std::uint64_t at = index + k + static_cast<unsigned>(__builtin_ctz(bits));
      report->first_non_finite = std::min(report->first_non_finite, at);
    }
  });
}

constexpr std::size_t kChunkValues = 512;
constexpr unsigned kFastBits = 31;
constexpr std::size_t kFastBytes = 31;  // of eight 31-bit residues

}  // namespace

void quantize32(const Message& message, std::size_t first, std::size_t count, std::int32_t* out) {
  const Codec& codec = *message.codec;
  const FloatQuantizer quantizer(codec);
  const bool stochastic = codec.rounding == Rounding::kStochastic, refers = message.reference.count > 0;
  std::optional<NoiseSource> rounding;
  if (stochastic) rounding.emplace(message.rounding);
  SecretBuffer<std::uint32_t> words(stochastic ? kChunkValues : 0);
  for (std::size_t done = 0; done < count;) {
    const std::size_t index = first + done;
    const Run run = run_at(message.tensors, index);
    const Run other = refers ? run_at(message.reference, index) : run;
    std::size_t step = std::min({count - done, run.length, other.length});
    if (step == 0) {
      std::fill(out + done, out + count, 0);
      return;
    }
    const std::size_t in_block = index % codec.block_values;
    if (stochastic) step = std::min({step, kChunkValues, codec.block_values - in_block});
    if (run.data == nullptr || other.data == nullptr) {
      SecretBuffer<std::int64_t> wide(step);
      scalar::quantize(message, index, step, wide.data());
      for (std::size_t i = 0; i < step; ++i) out[done + i] = static_cast<std::int32_t>(wide[i]);
    } else {
      if (stochastic) {
        rounding->read(static_cast<std::uint32_t>(Lane::kRounding), index / codec.block_values, in_block, step,
                       words.data());
      }
      quantize_run(quantizer, run.data, refers ? other.data : nullptr, stochastic ? words.data() : nullptr, step, index,
                   out + done, message.report);
    }
    done += step;
  }
}

void quantize(const Message& message, std::size_t first, std::size_t count, std::int64_t* out) {
  if (!message.codec->single_precision) return scalar::quantize(message, first, count, out);
  SecretBuffer<std::int32_t> narrow(kChunkValues);
  for (std::size_t done = 0; done < count; done += kChunkValues) {
    const std::size_t step = std::min(count - done, kChunkValues);
    quantize32(message, first + done, step, narrow.data());
    for (std::size_t i = 0; i < step; ++i) out[done + i] = narrow[i];
  }
}

// Two residues make one 62-bit item per 64-bit lane; lane j of the output takes the bits of item j from bit 2 j on and
// fills up with the next item. The byte written past the 31 in use belongs to residues that follow.
void pack_row(const PrimeTable<std::uint32_t>& prime, const std::uint32_t* in, std::size_t count, std::uint8_t* out) {
  std::size_t k = 0;
  if (prime.bits == kFastBits) {
    const Vector right = _mm256_set_epi64x(6, 4, 2, 0), left = _mm256_set_epi64x(64, 58, 60, 62);
    const Vector low = _mm256_set1_epi64x(0xffffffff);
    for (; k + kLanes < count; k += kLanes, out += kFastBytes) {
      const Vector v = load(in + k);
      const Vector items = _mm256_or_si256(_mm256_and_si256(v, low), _mm256_slli_epi64(_mm256_srli_epi64(v, 32), 31));
      const Vector next = _mm256_permute4x64_epi64(items, 0x39);
      store(out, _mm256_or_si256(_mm256_srlv_epi64(items, right), _mm256_sllv_epi64(next, left)));
    }
  }
  if (k < count) scalar::pack_row(prime, in + k, count - k, out);
}

bool unpack_row(const PrimeTable<std::uint32_t>& prime, const std::uint8_t* in, std::size_t count, std::uint32_t* out) {
  std::size_t k = 0;
  Vector invalid = _mm256_setzero_si256();
  if (prime.bits == kFastBits) {
    const Vector largest = broadcast(prime.modulus - 1);
    const Vector left = _mm256_set_epi64x(6, 4, 2, 0), right = _mm256_set_epi64x(58, 60, 62, 64);
    const Vector low31 = _mm256_set1_epi64x(0x7fffffff), high31 = _mm256_set1_epi64x(0x7fffffff00000000);
    for (; k + kLanes < count; k += kLanes, in += kFastBytes) {
      const Vector bytes = load(in);
      const Vector previous = _mm256_permute4x64_epi64(bytes, 0x93);
      const Vector items = _mm256_or_si256(_mm256_sllv_epi64(bytes, left), _mm256_srlv_epi64(previous, right));
      const Vector residues =
          _mm256_or_si256(_mm256_and_si256(items, low31), _mm256_and_si256(_mm256_slli_epi64(items, 1), high31));
      invalid = _mm256_or_si256(invalid, _mm256_cmpgt_epi32(residues, largest));
      store(out + k, residues);
    }
  }
  const bool rest = k == count || scalar::unpack_row(prime, in, count - k, out + k);
  return rest && _mm256_testz_si256(invalid, invalid) != 0;
}

}  // namespace pppml::kernels::avx2
