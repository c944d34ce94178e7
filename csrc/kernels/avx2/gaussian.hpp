// The discrete Gaussian as one table look-up in registers.
#pragma once

#include "kernels/avx2/lanes.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx2 {

// The cumulative table as one look-up. Write v = 2^31 - 1 - top, V[t] = 2^31 - 1 - high[t]: the magnitude is
// #{t : v < V[t]}, but for ties. Where no bucket of v holds two thresholds, that is base[bucket] + (v <
// threshold[bucket]). Buckets are parts of v's octaves: whole ones of the small numbers, halves and then quarters of
// the larger, where thresholds are dense.
class BucketTable {
 public:
  static constexpr unsigned kBuckets = 64;
  static constexpr std::size_t kSamples = 4 * kLanes;  // drawn at once

  explicit BucketTable(const GaussianTable& table);

  // False where a bucket would hold two thresholds.
  bool usable() const { return usable_; }

  // `count` words, a multiple of kSamples, become signed samples; false when some top equals a threshold.
  bool sample(std::uint32_t* words, std::size_t count) const;

 private:
  void sample_some(std::uint32_t* words, Vector* tied) const;

  // A bucket's threshold, byte by byte, and its base.
  static constexpr int kPlanes = 5;

  alignas(16) std::uint8_t planes_[kPlanes][kBuckets] = {};
  bool usable_ = true;
};

}  // namespace pppml::kernels::avx2
