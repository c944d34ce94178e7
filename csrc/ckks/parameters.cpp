#include "ckks/parameters.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.hpp"
#include "base/modular.hpp"
#include "ckks/slot_error.hpp"
#include "ring/primes.hpp"

namespace pppml::ckks {
namespace {

constexpr std::uint64_t kMostParties = std::uint64_t{1} << 20;
constexpr std::uint64_t kModulusLimit = std::uint64_t{1} << 62;
constexpr std::size_t kMostPrimes = 32;
constexpr std::size_t kMostOpeningPrimes = 2;

void check_use(const ParametersLiteral& literal) {
  require(literal.parties >= 1 && literal.parties <= kMostParties, "parties = ", literal.parties, " is outside 1 .. ",
          kMostParties);
  require(std::isfinite(literal.clip) && literal.clip > 1e-30 && literal.clip < 1e30, "clip = ", literal.clip,
          " must be a positive finite number, above 1e-30 and below 1e30: the largest |weight update| that is sent "
          "unclipped");
  require(literal.values_per_coefficient >= 1 && literal.values_per_coefficient <= 3,
          "values_per_coefficient = ", literal.values_per_coefficient, " is outside 1 .. 3");
  const bool slots = literal.packing != Packing::kCoefficients;
  require(!slots || literal.values_per_coefficient == 1, "values_per_coefficient = ", literal.values_per_coefficient,
          " does not go with slots, which fill every coefficient; use 1");
  require(literal.slot_scale == 0 || (slots && std::isfinite(literal.slot_scale) && literal.slot_scale > 0),
          "slot_scale = ", literal.slot_scale, " must be a positive finite number, and goes with slots only");
  require(!literal.insecure_for_comparison || literal.keys != KeyMode::kCollective,
          "sets for comparison release noisy sums, from which collective keys follow; use keys public or secret");
}

}  // namespace

void Parameters::check_primes() const {
  const auto& primes = literal_.primes;
  require(!primes.empty() && primes.size() <= kMostPrimes, primes.size(), " primes given; use 1 .. ", kMostPrimes);
  for (std::uint64_t q : primes) {
    require(q < (std::uint64_t{1} << 60) && ring::is_prime(q) && (q - 1) % (2 * literal_.ring_dimension) == 0,
            "modulus ", q, " is no prime below 2^60 that is 1 modulo ", 2 * literal_.ring_dimension);
    require(std::count(primes.begin(), primes.end(), q) == 1, "modulus ", q,
            " appears twice; residues need distinct primes");
  }
}

Parameters::Parameters(ParametersLiteral literal) : literal_(std::move(literal)) {
  const std::uint64_t n = literal_.ring_dimension;
  require(largest_modulus_bits(n) != 0, "ring dimension ", n, " is not in the security tables; use 1024 .. 32768");
  check_primes();
  check_use(literal_);
  for (std::uint64_t q : literal_.primes) {
    const Uint128 product = static_cast<Uint128>(opening_modulus_) * q;
    if (opening_primes_ == kMostOpeningPrimes || product >= kModulusLimit) break;
    opening_modulus_ = static_cast<std::uint64_t>(product);
    ++opening_primes_;
  }
  require(slots() || opening_primes_ == literal_.primes.size(), "the ciphertext modulus exceeds 2^62, or ",
          literal_.primes.size(), " primes exceed ", kMostOpeningPrimes,
          ", modulo which sums of coefficients open; use fewer or smaller primes, or slots");
  level_ = security_level(n, log2_modulus());
  require(level_.classical >= 128 || literal_.insecure_for_comparison, "a modulus of ", log2_modulus(),
          " bits at ring dimension ", n, " holds fewer than 128 bits; the limit is ", largest_modulus_bits(n), " bits");
  headroom_ = ckks::headroom(literal_.keys, literal_.weights, literal_.rounding, n, opening_modulus_, literal_.parties,
                             literal_.values_per_coefficient, slots() && literal_.insecure_for_comparison);
  require(headroom_.max_magnitude >= 1, "no exact sum of ", literal_.parties, " parties with ",
          literal_.values_per_coefficient, " values per coefficient fits a modulus of ",
          std::log2(static_cast<double>(opening_modulus_)),
          " bits; take a larger set, fewer parties or one value per coefficient");
  choose_step();
}

void Parameters::choose_step() {
  step_ = quantized_clip() / static_cast<double>(headroom_.max_magnitude);
  if (literal_.slot_scale > 0) {
    const double largest = total_scale();
    require(literal_.slot_scale <= largest, "slot_scale = 2^", std::log2(literal_.slot_scale), " exceeds 2^",
            std::log2(largest), ", the largest at which sums of ", literal_.parties, " parties up to ", literal_.clip,
            " each stay below half of the leading primes");
    step_ = static_cast<double>(headroom_.delta) / literal_.slot_scale;
    require(step_ <= quantized_clip(), "slot_scale = 2^", std::log2(literal_.slot_scale),
            " leaves nothing of values up to ", literal_.clip, " beside a noise of ", headroom_.noise_bound,
            "; use a larger one");
    // Rounding up must not lead beyond what the law admits; the quantiser keeps to the magnitude.
    const auto reach = static_cast<std::int64_t>(std::ceil(quantized_clip() / step_));
    limit_magnitude(std::min(reach, headroom_.max_magnitude), literal_.weights, literal_.rounding, literal_.parties,
                    &headroom_);
  }
  if (!slots()) return;
  max_error_ = slot_error(*this);
  if (!approximate()) release_step_ = std::exp2(std::ceil(std::log2(max_error_)));
}

double Parameters::quantized_clip() const {
  // A coefficient is a mean of slots times roots of unity; a slot of two halves has magnitude sqrt(2) clip at most.
  return packing() == Packing::kSlots ? std::sqrt(2.0) * literal_.clip : literal_.clip;
}

std::uint64_t Parameters::block_weights() const {
  return packing() == Packing::kRealSlots ? ring_dimension() / 2 : block_integers();
}

std::uint64_t Parameters::integer_count(std::uint64_t length) const {
  return slots() ? block_count(length) * ring_dimension() : length;
}

unsigned Parameters::log_degree() const {
  unsigned log = 0;
  while ((std::uint64_t{1} << log) < literal_.ring_dimension) ++log;
  return log;
}

double Parameters::log2_modulus() const {
  if (literal_.primes.size() == opening_primes_) return std::log2(static_cast<double>(opening_modulus_));
  double sum = 0;
  for (std::uint64_t q : literal_.primes) sum += std::log2(static_cast<double>(q));
  return sum;
}

double Parameters::exact_bits() const {
  return std::log2(2 * static_cast<double>(headroom_.max_magnitude) + 1);
}

bool Parameters::narrow_words() const {
  return std::all_of(primes().begin(), primes().end(), [](std::uint64_t q) { return q < (std::uint64_t{1} << 31); });
}

std::uint64_t Parameters::block_count(std::uint64_t length) const {
  return length / block_weights() + (length % block_weights() != 0 ? 1 : 0);
}

std::uint64_t Parameters::last_row_length(std::uint64_t length) const {
  if (length == 0 || slots()) return ring_dimension();
  const std::uint64_t left = length - (block_count(length) - 1) * block_weights();
  const std::uint64_t used = (left + values_per_coefficient() - 1) / values_per_coefficient();
  return std::max(used, std::min(kShortestRow, ring_dimension()));
}

}  // namespace pppml::ckks
