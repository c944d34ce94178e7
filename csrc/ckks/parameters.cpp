#include "ckks/parameters.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.hpp"
#include "base/modular.hpp"
#include "ring/primes.hpp"

namespace pppml::ckks {
namespace {

constexpr std::uint64_t kMostParties = std::uint64_t{1} << 20;
constexpr std::uint64_t kModulusLimit = std::uint64_t{1} << 62;

void check_primes(const ParametersLiteral& literal) {
  require(!literal.primes.empty() && literal.primes.size() <= 2, literal.primes.size(),
          " primes given: exact sums use one prime, or two");
  Uint128 product = 1;
  for (std::uint64_t q : literal.primes) {
    require(q < (std::uint64_t{1} << 60) && ring::is_prime(q) && (q - 1) % (2 * literal.ring_dimension) == 0,
            "modulus ", q, " is no prime below 2^60 that is 1 modulo ", 2 * literal.ring_dimension);
    product *= q;
    require(product < kModulusLimit, "the ciphertext modulus exceeds 2^62; use fewer or smaller primes");
  }
  require(literal.primes.size() == 1 || literal.primes[0] != literal.primes[1], "modulus ", literal.primes[0],
          " appears twice; residues need distinct primes");
}

void check_use(const ParametersLiteral& literal) {
  require(literal.parties >= 1 && literal.parties <= kMostParties, "parties = ", literal.parties, " is outside 1 .. ",
          kMostParties);
  require(std::isfinite(literal.clip) && literal.clip > 1e-30 && literal.clip < 1e30, "clip = ", literal.clip,
          " must be a positive finite number, above 1e-30 and below 1e30: the largest |weight update| that is sent "
          "unclipped");
  require(literal.values_per_coefficient >= 1 && literal.values_per_coefficient <= 3,
          "values_per_coefficient = ", literal.values_per_coefficient, " is outside 1 .. 3");
}

}  // namespace

Parameters::Parameters(ParametersLiteral literal) : literal_(std::move(literal)) {
  const std::uint64_t n = literal_.ring_dimension;
  require(largest_modulus_bits(n) != 0, "ring dimension ", n, " is not in the security tables; use 1024 .. 32768");
  check_primes(literal_);
  check_use(literal_);
  for (std::uint64_t q : literal_.primes) modulus_ *= q;
  level_ = security_level(n, log2_modulus());
  require(level_.classical >= 128, "a modulus of ", log2_modulus(), " bits at ring dimension ", n,
          " holds fewer than 128 bits; the limit is ", largest_modulus_bits(n), " bits");
  headroom_ = ckks::headroom(literal_.keys, literal_.weights, literal_.rounding, n, modulus_, literal_.parties,
                             literal_.values_per_coefficient);
  require(headroom_.max_magnitude >= 1, "no exact sum of ", literal_.parties, " parties with ",
          literal_.values_per_coefficient, " values per coefficient fits a modulus of ", log2_modulus(),
          " bits; take a larger set, fewer parties or one value per coefficient");
}

unsigned Parameters::log_degree() const {
  unsigned log = 0;
  while ((std::uint64_t{1} << log) < literal_.ring_dimension) ++log;
  return log;
}

double Parameters::log2_modulus() const {
  return std::log2(static_cast<double>(modulus_));
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
  if (length == 0) return ring_dimension();
  const std::uint64_t left = length - (block_count(length) - 1) * block_weights();
  const std::uint64_t used = (left + values_per_coefficient() - 1) / values_per_coefficient();
  return std::max(used, std::min(kShortestRow, ring_dimension()));
}

}  // namespace pppml::ckks
