// How far an opened sum of slots may lie from the sum of the weights.
#pragma once

#include "ckks/parameters.hpp"

namespace pppml::ckks {

// Bound on |opened - sum of clipped, weighted weights| of any slot of a sum of n, before it is rounded for release.
//
// Rounding: a party's coefficient errs by rho steps, and slot e by sum rho_k cos(pi e k / N). To the nearest, |rho| is
// at most 1/2, and 2^-53 max_magnitude more where float64 cannot hold the product; the cosines' magnitudes sum to less
// than 0.64 N. Stochastic rho are independent, of mean zero, within ranges of length 1, and the squared cosines sum to
// N / 2: P(|error| > t) <= 2 exp(-4 t^2 / (n N)) [Hoeffding 1963], below 2^-171 at t = 5.46 sqrt(n N), which leaves
// 2^-128 over 7e9 weights and 1000 rounds.
//
// Transforms: each of log2 M levels of butterflies errs by less than 8 * 2^-53 of the vector's Euclidean norm, as do
// the roots; encoding and decoding both, over at most sqrt(N) clip per party, or in all where weights are public.
//
// Without the margin of exact sums, the noise: 15.45 deviations of a Gaussian of variance N / 2 times a coefficient's.
// Public-key noise has wider tails than that in the embedding: this part is a figure for comparison, no guarantee.
double slot_error(const Parameters& parameters);

}  // namespace pppml::ckks
