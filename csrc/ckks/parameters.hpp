// Parameters of CKKS for sums: an unchecked literal, and the immutable checked object built from it.
#pragma once

#include <cstdint>
#include <vector>

#include "ckks/headroom.hpp"
#include "ckks/security.hpp"

namespace pppml::ckks {

// What a coefficient of the message polynomial holds: weights, or the coefficients of a polynomial whose values in the
// N/2 slots of the canonical embedding are the weights, in both halves of each complex slot or in the real one only.
enum class Packing { kCoefficients, kSlots, kRealSlots };

struct ParametersLiteral {
  std::uint64_t ring_dimension = 0;
  std::vector<std::uint64_t> primes;
  std::uint64_t parties = 0;
  double clip = 0;
  KeyMode keys = KeyMode::kPublic;
  WeightPolicy weights = WeightPolicy::kFree;
  unsigned values_per_coefficient = 1;
  Rounding rounding = Rounding::kNearest;
  Packing packing = Packing::kCoefficients;
  double slot_scale = 0;  // slots: phase = slot_scale * embedding; 0 for the largest that fits
  // Takes sets below 128 bits, and slot sets without the margin that makes sums exact (delta = 1).
  bool insecure_for_comparison = false;
};

class Parameters {
 public:
  // Throws RequirementError with value, limit and remedy when the literal is unsound.
  explicit Parameters(ParametersLiteral literal);

  std::uint64_t ring_dimension() const { return literal_.ring_dimension; }
  unsigned log_degree() const;
  const std::vector<std::uint64_t>& primes() const { return literal_.primes; }
  double log2_modulus() const;
  // Sums open modulo the product of the first `opening_primes` primes, the most (one or two) that stay below 2^62. What
  // comes after them serves multiplication.
  std::size_t opening_primes() const { return opening_primes_; }
  std::uint64_t opening_modulus() const { return opening_modulus_; }
  std::uint64_t parties() const { return literal_.parties; }
  double clip() const { return literal_.clip; }
  KeyMode keys() const { return literal_.keys; }
  WeightPolicy weights() const { return literal_.weights; }
  Rounding rounding() const { return literal_.rounding; }
  unsigned values_per_coefficient() const { return literal_.values_per_coefficient; }
  Packing packing() const { return literal_.packing; }
  bool slots() const { return literal_.packing != Packing::kCoefficients; }
  // Without the margin for noise: what opens is approximate, and says so.
  bool approximate() const { return headroom_.delta == 1; }

  SecurityLevel level() const { return level_; }
  const Headroom& headroom() const { return headroom_; }
  // Largest magnitude of what is quantised: weights, or message coefficients of slots.
  double quantized_clip() const;
  // Width of one quantisation step: quantized_clip / max_magnitude, or what slot_scale asks for.
  double step() const { return step_; }
  // Phase over value: delta / step.
  double total_scale() const { return static_cast<double>(headroom_.delta) / step_; }
  // Bound on |opened sum - sum of clipped weights|, without the rounding to `release_step` (slots.hpp derives it).
  double max_error() const { return max_error_; }
  // Slots open rounded to multiples of this power of two, the least that is no finer than max_error; 0 where they do
  // not: coefficients are exact, and approximate sets stand for codes that release what they decrypt.
  double release_step() const { return release_step_; }
  // log2 of the number of values one party can send: 2 * max_magnitude + 1.
  double exact_bits() const;
  // Quantisation runs in float32 where that holds every value exactly with a bit to spare, else in float64.
  bool single_precision() const { return !slots() && headroom_.max_magnitude < (std::int64_t{1} << 23); }
  // All primes below 2^31 live in 32-bit words.
  bool narrow_words() const;

  std::uint64_t block_weights() const;
  std::uint64_t block_count(std::uint64_t length) const;
  // Quantised integers of a block, and of a vector: one per weight, or N per block of slots.
  std::uint64_t block_integers() const { return ring_dimension() * values_per_coefficient(); }
  std::uint64_t integer_count(std::uint64_t length) const;
  // Coefficients per row of the last block: as many as carry weights, but at least kShortestRow (or N), so that the
  // residual check keeps its reach on short vectors. All carry slots.
  std::uint64_t last_row_length(std::uint64_t length) const;
  static constexpr std::uint64_t kShortestRow = 128;

 private:
  void check_primes() const;
  void choose_step();

  ParametersLiteral literal_;
  std::size_t opening_primes_ = 0;
  std::uint64_t opening_modulus_ = 1;
  SecurityLevel level_{};
  Headroom headroom_{};
  double step_ = 0, max_error_ = 0, release_step_ = 0;
};

}  // namespace pppml::ckks
