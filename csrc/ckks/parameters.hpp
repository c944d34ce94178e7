// Parameters of CKKS for sums: an unchecked literal, and the immutable checked object built from it.
#pragma once

#include <cstdint>
#include <vector>

#include "ckks/headroom.hpp"
#include "ckks/security.hpp"

namespace pppml::ckks {

struct ParametersLiteral {
  std::uint64_t ring_dimension = 0;
  std::vector<std::uint64_t> primes;
  std::uint64_t parties = 0;
  double clip = 0;
  KeyMode keys = KeyMode::kPublic;
  WeightPolicy weights = WeightPolicy::kFree;
  unsigned values_per_coefficient = 1;
  Rounding rounding = Rounding::kNearest;
};

class Parameters {
 public:
  // Throws RequirementError with value, limit and remedy when the literal is unsound.
  explicit Parameters(ParametersLiteral literal);

  std::uint64_t ring_dimension() const { return literal_.ring_dimension; }
  unsigned log_degree() const;
  const std::vector<std::uint64_t>& primes() const { return literal_.primes; }
  std::uint64_t modulus() const { return modulus_; }  // Q < 2^62
  double log2_modulus() const;
  std::uint64_t parties() const { return literal_.parties; }
  double clip() const { return literal_.clip; }
  KeyMode keys() const { return literal_.keys; }
  WeightPolicy weights() const { return literal_.weights; }
  Rounding rounding() const { return literal_.rounding; }
  unsigned values_per_coefficient() const { return literal_.values_per_coefficient; }

  SecurityLevel level() const { return level_; }
  const Headroom& headroom() const { return headroom_; }
  // Width of one quantisation step: clip / max_magnitude.
  double step() const { return literal_.clip / static_cast<double>(headroom_.max_magnitude); }
  // log2 of the number of values one party can send: 2 * max_magnitude + 1.
  double exact_bits() const;
  // Quantisation runs in float32 where that holds every value exactly with a bit to spare, else in float64.
  bool single_precision() const { return headroom_.max_magnitude < (std::int64_t{1} << 23); }
  // All primes below 2^31 live in 32-bit words.
  bool narrow_words() const;

  std::uint64_t block_weights() const { return ring_dimension() * values_per_coefficient(); }
  std::uint64_t block_count(std::uint64_t length) const;
  // Coefficients per row of the last block: as many as carry weights, but at least kShortestRow (or N), so that the
  // residual check keeps its reach on short vectors.
  std::uint64_t last_row_length(std::uint64_t length) const;
  static constexpr std::uint64_t kShortestRow = 128;

 private:
  ParametersLiteral literal_;
  std::uint64_t modulus_ = 1;
  SecurityLevel level_{};
  Headroom headroom_{};
};

}  // namespace pppml::ckks
