// The discrete Gaussian as one table look-up in registers.
#pragma once

#include "kernels/avx512/lanes.hpp"
#include "kernels/avx512/streams.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

// The cumulative table as one look-up. Write v = 2^31 - 1 - top, V[t] = 2^31 - 1 - high[t]: the magnitude is
// #{t : v < V[t]}, but for ties. Buckets are the quarters of v's octaves (exponent and two bits of the fraction of v as
// a float rounded towards zero); where no bucket holds two thresholds, the magnitude is base[bucket] + (v <
// threshold[bucket]).
class BucketTable {
 public:
  static constexpr unsigned kBuckets = 128;

  explicit BucketTable(const GaussianTable& table) {
    constexpr std::uint32_t kTop = 0x7fffffff;
    for (unsigned t = 0; t < table.largest; ++t) {
      const std::uint32_t limit = kTop - table.high[t];
      const unsigned bucket = bucket_of(limit);
      // Threshold 0 is below every v: its samples are decided by tie words, like all ties.
      if (limit != 0) {
        usable_ = usable_ && threshold_[bucket] == 0;
        threshold_[bucket] = limit;
      }
    }
    std::uint8_t below = 0;
    for (unsigned bucket = kBuckets; bucket-- > 0;) {
      base_[bucket] = below;
      below = static_cast<std::uint8_t>(below + (threshold_[bucket] != 0 ? 1 : 0));
    }
  }

  bool usable() const { return usable_; }

  // Signed samples of sixteen words; *tied collects lanes whose top equals a threshold.
  Vector sample(Vector words, __mmask16* tied) const {
    const Vector v = _mm512_andnot_si512(_mm512_srli_epi32(words, 1), broadcast(0x7fffffff));
    const Vector bucket = bucket_of(v);
    const Vector limit = threshold(bucket);
    Vector size = _mm512_maskz_permutex2var_epi8(0x1111111111111111ull, load_bytes(0), bucket, load_bytes(64));
    size = _mm512_mask_add_epi32(size, _mm512_cmplt_epu32_mask(v, limit), size, broadcast(1));
    *tied = static_cast<__mmask16>(*tied | _mm512_cmpeq_epu32_mask(v, limit));
    const __mmask16 negative = _mm512_test_epi32_mask(words, broadcast(1));
    return _mm512_mask_sub_epi32(size, negative, _mm512_setzero_si512(), size);
  }

 private:
  static constexpr std::uint32_t kBias = 127 * 4 - 1;  // of v = 1, which takes bucket 1

  static unsigned bucket_of(std::uint32_t v) {
    alignas(64) std::uint32_t lanes[kLanes];
    store(lanes, bucket_of(broadcast(v)));
    return lanes[0];
  }

  static Vector bucket_of(Vector v) {
    const __m512 rounded = _mm512_cvt_roundepu32_ps(v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    const Vector quarter = _mm512_srli_epi32(_mm512_castps_si512(rounded), 21);
    return _mm512_max_epi32(_mm512_sub_epi32(quarter, broadcast(kBias)), _mm512_setzero_si512());
  }

  Vector load_bytes(std::size_t at) const { return _mm512_loadu_si512(base_ + at); }

  Vector threshold(Vector bucket) const {
    Vector parts[4];
    for (int i = 0; i < 4; ++i) {
      parts[i] = _mm512_permutex2var_epi32(load(threshold_ + 32 * i), bucket, load(threshold_ + 32 * i + 16));
    }
    const __mmask16 bit5 = _mm512_test_epi32_mask(bucket, broadcast(32));
    const __mmask16 bit6 = _mm512_test_epi32_mask(bucket, broadcast(64));
    const Vector low = _mm512_mask_blend_epi32(bit5, parts[0], parts[1]);
    const Vector high = _mm512_mask_blend_epi32(bit5, parts[2], parts[3]);
    return _mm512_mask_blend_epi32(bit6, low, high);
  }

  alignas(64) std::uint32_t threshold_[kBuckets] = {};
  alignas(64) std::uint8_t base_[kBuckets] = {};
  bool usable_ = true;
};

class GaussianSampler {
 public:
  explicit GaussianSampler(const GaussianTable& table) : table_(table), buckets_(table) {}

  // What KernelTable::gaussian returns.
  void sample_row(const PrivateWords& source, Lane lane, std::uint64_t block, std::size_t count,
                  std::int32_t* out) const;

 private:
  const GaussianTable& table_;
  BucketTable buckets_;
};

}  // namespace pppml::kernels::avx512
