// The kernels' tables as the host makes them, before they are copied to a device.
#pragma once

#include <array>
#include <vector>

#include "base/check.hpp"
#include "kernels/cuda/samplers.hpp"

namespace pppml::kernels::cuda {

// count factors and their companions side by side
template <class Word>
void interleave(const Word* values, const Word* companions, std::size_t count, Factor<Word>* out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = {values[i], companions[i]};
}

// What GaussianLookup reads. Throws RequirementError where two thresholds share a bucket or one lies below the first.
struct GaussianLookupTable {
  explicit GaussianLookupTable(const GaussianTable& table) {
    constexpr std::uint32_t kTop = 0x7fffffff;
    for (unsigned t = 0; t < table.largest; ++t) {
      const std::uint32_t limit = kTop - table.high[t];
      // Threshold 0 is below every v: ties alone reach it.
      if (limit == 0) continue;
      std::uint32_t& threshold = thresholds[gaussian_bucket(limit)];
      require(threshold == 0, "thresholds ", threshold, " and ", limit, " of a Gaussian lie in one bucket");
      threshold = limit;
    }
    std::uint32_t below = 0;
    for (unsigned bucket = DeviceGaussian::kBuckets; bucket-- > 0;) {
      bases[bucket / 4] |= below << (8 * (bucket % 4));
      below += thresholds[bucket] != 0 ? 1 : 0;
    }
  }

  std::array<std::uint32_t, DeviceGaussian::kBuckets> thresholds{};
  std::array<std::uint32_t, DeviceGaussian::kBuckets / 4> bases{};
};

}  // namespace pppml::kernels::cuda
