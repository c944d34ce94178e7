// Security levels: the largest log2 Q per ring dimension for ternary or wider secrets
// [Bossuat et al., Security Guidelines for Implementing Homomorphic Encryption, eprint 2024/463, tables 5.2 and 5.3].
#pragma once

#include <cstdint>

namespace pppml::ckks {

// Levels 0 (below 128), 128, 192 or 256 against classical and against quantum attacks.
struct SecurityLevel {
  int classical;
  int quantum;
};

SecurityLevel security_level(std::uint64_t ring_dimension, double log2_modulus);

// Largest log2 Q that holds 128 bits classically at this dimension; 0 where the guidelines have no row.
unsigned largest_modulus_bits(std::uint64_t ring_dimension);

}  // namespace pppml::ckks
