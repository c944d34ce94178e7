#include "kernels/avx2/gaussian.hpp"

namespace pppml::kernels::avx2 {
namespace {

constexpr int kRegisterBytes = 16;  // a byte shuffle looks up one of sixteen

// v = 2^31 - 1 - top of eight words.
inline Vector complement_of_top(Vector words) {
  return _mm256_srli_epi32(_mm256_xor_si256(words, broadcast(0xffffffff)), 1);
}

// The quarter of v's octave, counted from 0 for v = 1 on, plus kQuarterBias; 0 for v = 0. As a float v keeps its order.
constexpr int kQuarterBias = 127 * 4;
inline Vector biased_quarter(Vector v) {
  return _mm256_srli_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(v)), 21);
}

// Sixteen biased quarters, 0 .. 124, to buckets: the largest of quarter - 61, half - 8 and octave + 1. What v = 0 gives
// is negative.
inline Vector bucket16(Vector quarter) {
  const auto shifted = [](Vector x, int amount) {
    return _mm256_add_epi16(x, _mm256_set1_epi16(static_cast<short>(amount)));
  };
  const Vector quarters = shifted(quarter, -kQuarterBias - 61);
  const Vector halves = shifted(_mm256_srli_epi16(quarter, 1), -kQuarterBias / 2 - 8);
  const Vector octaves = shifted(_mm256_srli_epi16(quarter, 2), -kQuarterBias / 4 + 1);
  return _mm256_max_epi16(_mm256_max_epi16(quarters, halves), octaves);
}

// The buckets of 32 numbers, a byte each in the order that two packings leave.
inline Vector bucket8(const Vector* v) {
  const Vector low = _mm256_packs_epi32(biased_quarter(v[0]), biased_quarter(v[1]));
  const Vector high = _mm256_packs_epi32(biased_quarter(v[2]), biased_quarter(v[3]));
  return _mm256_packus_epi16(bucket16(low), bucket16(high));
}

unsigned bucket_of(std::uint32_t value) {
  const Vector v[4] = {broadcast(value), broadcast(value), broadcast(value), broadcast(value)};
  return static_cast<unsigned>(_mm256_extract_epi8(bucket8(v), 0));
}

}  // namespace

BucketTable::BucketTable(const GaussianTable& table) {
  constexpr std::uint32_t kTop = 0x7fffffff;
  std::uint32_t thresholds[kBuckets] = {};
  for (unsigned t = 0; t < table.largest; ++t) {
    const std::uint32_t limit = kTop - table.high[t];
    // Threshold 0 is below every v: its samples are decided by tie words, like all ties.
    if (limit == 0) continue;
    std::uint32_t& threshold = thresholds[bucket_of(limit)];
    usable_ = usable_ && threshold == 0;
    threshold = limit;
  }
  std::uint8_t above = 0;
  for (unsigned bucket = kBuckets; bucket-- > 0;) {
    for (int byte = 0; byte < 4; ++byte)
      planes_[byte][bucket] = static_cast<std::uint8_t>(thresholds[bucket] >> 8 * byte);
    planes_[4][bucket] = above;
    above = static_cast<std::uint8_t>(above + (thresholds[bucket] != 0 ? 1 : 0));
  }
}

inline void BucketTable::sample_some(std::uint32_t* words, Vector* tied) const {
  Vector v[4], found[kPlanes];
  for (std::size_t i = 0; i < 4; ++i) v[i] = complement_of_top(load(words + kLanes * i));
  const Vector bucket = bucket8(v);
  for (Vector& plane : found) plane = _mm256_setzero_si256();
  for (unsigned start = 0; start < kBuckets; start += kRegisterBytes) {
    // In this part of the table: 0x70 to 0x7f, which looks up; elsewhere 0x80 or more, which gives zero.
    const Vector offset = _mm256_xor_si256(bucket, _mm256_set1_epi8(static_cast<char>(start)));
    const Vector index = _mm256_adds_epu8(offset, _mm256_set1_epi8(0x70));
    for (int p = 0; p < kPlanes; ++p) {
      const auto* entries = reinterpret_cast<const __m128i*>(planes_[p] + start);
      const Vector part = _mm256_broadcastsi128_si256(_mm_load_si128(entries));
      found[p] = _mm256_or_si256(found[p], _mm256_shuffle_epi8(part, index));
    }
  }
  // Unpacking inside 128-bit halves undoes what packing did there.
  const Vector zero = _mm256_setzero_si256();
  for (std::size_t i = 0; i < 4; ++i) {
    const auto unpack8 = [i](Vector a, Vector b) {
      return i < 2 ? _mm256_unpacklo_epi8(a, b) : _mm256_unpackhi_epi8(a, b);
    };
    const auto unpack16 = [i](Vector a, Vector b) {
      return i % 2 == 0 ? _mm256_unpacklo_epi16(a, b) : _mm256_unpackhi_epi16(a, b);
    };
    const Vector threshold = unpack16(unpack8(found[0], found[1]), unpack8(found[2], found[3]));
    const Vector base = unpack16(unpack8(found[4], zero), zero);
    const Vector size = _mm256_sub_epi32(base, _mm256_cmpgt_epi32(threshold, v[i]));
    *tied = _mm256_or_si256(*tied, _mm256_cmpeq_epi32(threshold, v[i]));
    // Bit 0 of the word is the sign; the other bit keeps the factor from being zero.
    const Vector sign = _mm256_or_si256(_mm256_slli_epi32(load(words + kLanes * i), 31), broadcast(1));
    store(words + kLanes * i, _mm256_sign_epi32(size, sign));
  }
}

bool BucketTable::sample(std::uint32_t* words, std::size_t count) const {
  Vector tied = _mm256_setzero_si256();
  for (std::size_t k = 0; k < count; k += kSamples) sample_some(words + k, &tied);
  return _mm256_testz_si256(tied, tied) != 0;
}

}  // namespace pppml::kernels::avx2
