#include "ckks/headroom.hpp"

#include <cmath>

#include "base/modular.hpp"

namespace pppml::ckks {
namespace {

constexpr double kGaussianDeviations = 15.2;
constexpr double kSubGaussianDeviations = 15.45;
// Quantised values are made in float64 at most, where integers stay exact below 2^53.
constexpr std::int64_t kLargestMagnitude = std::int64_t{1} << 52;

std::int64_t sum_bound(WeightPolicy policy, std::uint64_t parties, std::int64_t magnitude) {
  const auto n = static_cast<std::int64_t>(parties);
  if (policy == WeightPolicy::kFree) return n * magnitude;
  return magnitude + (magnitude >> 20) + n / 2 + 2;
}

// (base^k - 1) / 2 * delta + noise < Q / 2, in integers: (base^k - 1) * delta + 2 * noise < Q
bool fits(const Headroom& h, std::uint64_t modulus, unsigned values_per_coefficient) {
  Uint128 reach = 1;
  for (unsigned t = 0; t < values_per_coefficient; ++t) {
    reach *= static_cast<std::uint64_t>(h.base);
    if (reach > modulus) return false;
  }
  return (reach - 1) * static_cast<std::uint64_t>(h.delta) + 2 * static_cast<std::uint64_t>(h.noise_bound) < modulus;
}

}  // namespace

double noise_variance(KeyMode mode, std::uint64_t ring_dimension) {
  constexpr double kErrorVariance = 3.2 * 3.2;
  switch (mode) {
    case KeyMode::kCollective: return 40.5;
    case KeyMode::kSecret: return kErrorVariance;
    case KeyMode::kPublic: return kErrorVariance * (1 + 1.1 * 4 * static_cast<double>(ring_dimension) / 3);
  }
  return 0;
}

std::int64_t noise_bound(KeyMode mode, std::uint64_t ring_dimension, std::uint64_t parties) {
  const double deviations = mode == KeyMode::kPublic ? kSubGaussianDeviations : kGaussianDeviations;
  const double variance = noise_variance(mode, ring_dimension) * static_cast<double>(parties);
  return static_cast<std::int64_t>(std::ceil(deviations * std::sqrt(variance)));
}

double failure_log2(KeyMode mode) {
  const double coefficients = std::log2(7e9 * 1000);
  if (mode == KeyMode::kPublic) {
    return coefficients + 1 - kSubGaussianDeviations * kSubGaussianDeviations / 2 / std::log(2.0);
  }
  return coefficients + std::log2(std::erfc(kGaussianDeviations / std::sqrt(2.0)));
}

Headroom headroom(KeyMode mode, WeightPolicy policy, std::uint64_t ring_dimension, std::uint64_t modulus,
                  std::uint64_t parties, unsigned values_per_coefficient) {
  Headroom h{};
  h.noise_bound = noise_bound(mode, ring_dimension, parties);
  h.delta = 2 * h.noise_bound + 1;
  const auto with = [&](std::int64_t magnitude) {
    Headroom candidate = h;
    candidate.max_magnitude = magnitude;
    candidate.sum_bound = sum_bound(policy, parties, magnitude);
    candidate.base = 2 * candidate.sum_bound + 1;
    return candidate;
  };
  std::int64_t low = 0, high = kLargestMagnitude;
  while (low < high) {
    const std::int64_t middle = low + (high - low + 1) / 2;
    if (fits(with(middle), modulus, values_per_coefficient)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return with(low);
}

}  // namespace pppml::ckks
