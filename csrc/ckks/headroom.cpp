#include "ckks/headroom.hpp"

#include <cmath>

#include "base/modular.hpp"

namespace pppml::ckks {
namespace {

constexpr double kGaussianDeviations = 15.2;
constexpr double kSubGaussianDeviations = 15.45;
// Quantised values are made in float64 at most, where integers stay exact below 2^53.
constexpr std::int64_t kLargestMagnitude = std::int64_t{1} << 52;

// Wide enough for 2^20 parties at the largest magnitude.
Int128 sum_bound(WeightPolicy policy, Rounding rounding, std::uint64_t parties, std::int64_t magnitude) {
  const auto n = static_cast<Int128>(parties);
  if (policy == WeightPolicy::kFree) return n * magnitude;
  const Int128 roundings = rounding == Rounding::kNearest ? n / 2 : n;
  return static_cast<Int128>(magnitude) + (magnitude >> 20) + roundings + 2;
}

// (base^k - 1) / 2 * delta + noise < Q / 2, in integers: (base^k - 1) * delta + 2 * noise < Q
bool fits(const Headroom& h, Int128 bound, std::uint64_t modulus, unsigned values_per_coefficient) {
  const Uint128 base = 2 * static_cast<Uint128>(bound) + 1;
  Uint128 reach = 1;
  for (unsigned t = 0; t < values_per_coefficient; ++t) {
    if (base > modulus || reach > modulus) return false;
    reach *= base;
  }
  if (reach > modulus) return false;
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

Headroom headroom(KeyMode mode, WeightPolicy policy, Rounding rounding, std::uint64_t ring_dimension,
                  std::uint64_t modulus, std::uint64_t parties, unsigned values_per_coefficient, bool approximate) {
  Headroom h{};
  h.noise_bound = noise_bound(mode, ring_dimension, parties);
  h.delta = approximate ? 1 : 2 * h.noise_bound + 1;
  std::int64_t low = 0, high = kLargestMagnitude;
  while (low < high) {
    const std::int64_t middle = low + (high - low + 1) / 2;
    if (fits(h, sum_bound(policy, rounding, parties, middle), modulus, values_per_coefficient)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  // What fits stays below Q < 2^62. Where not even zero does, the caller refuses the set by its magnitude.
  limit_magnitude(low, policy, rounding, parties, &h);
  return h;
}

void limit_magnitude(std::int64_t magnitude, WeightPolicy policy, Rounding rounding, std::uint64_t parties,
                     Headroom* headroom) {
  const Int128 bound = sum_bound(policy, rounding, parties, magnitude);
  headroom->max_magnitude = magnitude;
  headroom->sum_bound = static_cast<std::int64_t>(bound);
  headroom->base = static_cast<std::int64_t>(2 * bound + 1);
}

}  // namespace pppml::ckks
