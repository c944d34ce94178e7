// Inverse and forward negacyclic NTT on 32-bit words: levels inside 32 residues in registers, the others two at a time.
#pragma once

#include "kernels/avx512/lanes.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

using Prime32 = PrimeTable<std::uint32_t>;

// Both need log_degree >= kSmallestLogDegree.
constexpr unsigned kSmallestLogDegree = 6;

// values in [0, q), in place; N times the inverse transform.
void inverse_ntt_unscaled(const Prime32& prime, unsigned log_degree, std::uint32_t* values);

// The levels of the inverse transform from distance `half` >= 16 upwards.
void inverse_large(const Prime32& prime, unsigned log_degree, std::size_t half, std::uint32_t* values);

void forward_ntt(const Prime32& prime, unsigned log_degree, std::uint32_t* values);

}  // namespace pppml::kernels::avx512
