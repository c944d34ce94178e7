// The one law of exact sums: delta * bound(|sum m|) + noise_bound(n) < Q / 2.
//
// It fixes, before anything is encrypted, how far quantised values may reach so that round(phase / delta) is the sum of
// the quantised integers, exactly.
#pragma once

#include <cstdint>

#include "kernels/contract.hpp"

namespace pppml::ckks {

enum class KeyMode { kPublic, kSecret, kCollective };
enum class WeightPolicy { kFree, kPublicWeights };
using kernels::Rounding;

// Variance of one coefficient of one party's encryption noise.
//   collective: 40.5, sigma = sqrt(2) * 4.5;  secret: 10.24, sigma = 3.2
//   public: sigma^2 (1 + 1.1 * 4N/3): e0 + e u + e1 s, where key generation holds ||e||^2 <= 1.1 N sigma^2 and
//   ||s||^2 <= 1.1 * 2N/3
double noise_variance(KeyMode mode, std::uint64_t ring_dimension);

// Bound on the noise of a sum of n encryptions: z standard deviations, rounded up. z = 15.2 leaves a Gaussian tail of
// 2^-170 per coefficient; public-key noise is only sub-Gaussian given the key, 2 exp(-z^2 / 2), and takes z = 15.45.
// Both stay below 2^-128 over 7e9 coefficients and 1000 rounds.
std::int64_t noise_bound(KeyMode mode, std::uint64_t ring_dimension, std::uint64_t parties);

// log2 of the probability that any of 7e9 coefficients in any of 1000 rounds exceeds noise_bound.
double failure_log2(KeyMode mode);

struct Headroom {
  std::int64_t delta;  // 2 * noise_bound + 1
  std::int64_t noise_bound;
  std::int64_t max_magnitude;  // of one party's quantised value
  std::int64_t sum_bound;      // of the sum of the parties' quantised values
  std::int64_t base;           // 2 * sum_bound + 1, distance of the values packed in one coefficient
};

// The largest max_magnitude the law admits. bound(|sum v|) is n * max|v| for free use. With public weights p_i >= 0
// that sum to 1 it is max|v| + n/2 + 1, n/2 for the roundings (n where they are stochastic) and 2^-20 of max|v| for the
// float multipliers. max_magnitude is 0 where nothing fits.
// `approximate` leaves the noise in the result: delta is 1, and the sum of the messages plus noise stays below Q / 2.
Headroom headroom(KeyMode mode, WeightPolicy policy, Rounding rounding, std::uint64_t ring_dimension,
                  std::uint64_t modulus, std::uint64_t parties, unsigned values_per_coefficient, bool approximate);

// Sets max_magnitude, which must not grow, and what follows from it.
void limit_magnitude(std::int64_t magnitude, WeightPolicy policy, Rounding rounding, std::uint64_t parties,
                     Headroom* headroom);

}  // namespace pppml::ckks
