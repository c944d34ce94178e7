// Parameters of any literal: refused, or sound. Input: dimension (1 byte: table row, else 8 bytes), primes (1 byte: how
// many; each 1 byte of width or 8 bytes), parties (8), clip (8), modes (1 each), values (1), length of a vector (8),
// packing (1), whether for comparison only (1), slot scale (1 byte: power of two, else 8 bytes).
#include <cmath>

#include "base/check.hpp"
#include "base/modular.hpp"
#include "ckks/parameters.hpp"
#include "ring/primes.hpp"
#include "tests/fuzz/input.hpp"

namespace {

using namespace pppml;
using fuzz::check;

// A number the input names: one of its own, or the largest NTT prime of a width, which the checks accept.
std::uint64_t take_prime(fuzz::Input& input, std::uint64_t degree) {
  const auto width = input.take<std::uint8_t>();
  if (width >= 64 || degree == 0 || degree > 65536) return input.take<std::uint64_t>();
  std::uint64_t candidate = ((std::uint64_t{1} << width) - 1) / (2 * degree) * (2 * degree) + 1;
  for (int tries = 0; tries < 200 && candidate > 2 * degree; ++tries, candidate -= 2 * degree) {
    if (candidate >> width == 0 && ring::is_prime(candidate)) return candidate;
  }
  return candidate;
}

ckks::ParametersLiteral take_literal(fuzz::Input& input) {
  ckks::ParametersLiteral literal;
  const auto row = input.take<std::uint8_t>();
  literal.ring_dimension = row < 32 ? std::uint64_t{1} << row : input.take<std::uint64_t>();
  const auto primes = input.take<std::uint8_t>() % 4;
  for (int l = 0; l < primes; ++l) literal.primes.push_back(take_prime(input, literal.ring_dimension));
  literal.parties = input.take<std::uint8_t>();
  if (literal.parties >= 128) literal.parties = input.take<std::uint64_t>();
  literal.clip = input.take<double>();
  literal.keys = static_cast<ckks::KeyMode>(input.take<std::uint8_t>() % 3);
  literal.weights = static_cast<ckks::WeightPolicy>(input.take<std::uint8_t>() % 2);
  literal.rounding = static_cast<kernels::Rounding>(input.take<std::uint8_t>() % 2);
  literal.values_per_coefficient = input.take<std::uint8_t>() % 5;
  return literal;
}

void take_slots(fuzz::Input& input, ckks::ParametersLiteral& literal) {
  literal.packing = static_cast<ckks::Packing>(input.take<std::uint8_t>() % 3);
  literal.insecure_for_comparison = input.take<std::uint8_t>() % 2 != 0;
  const auto power = input.take<std::uint8_t>();
  literal.slot_scale = power == 0 ? 0 : power < 80 ? std::exp2(power) : input.take<double>();
}

// delta * (base^k - 1) / 2 + noise < Q / 2 for the Q that sums open modulo, and the bound on sums covers what the
// parties may send.
void check_law(const ckks::Parameters& parameters, bool insecure) {
  const ckks::Headroom& h = parameters.headroom();
  Int128 reach = 1;
  for (unsigned t = 0; t < parameters.values_per_coefficient(); ++t) reach *= h.base;
  check((reach - 1) * h.delta + 2 * static_cast<Int128>(h.noise_bound) <
            static_cast<Int128>(parameters.opening_modulus()),
        "the headroom law is broken");
  const std::int64_t delta = parameters.approximate() ? 1 : 2 * h.noise_bound + 1;
  check(h.delta == delta && h.base == 2 * h.sum_bound + 1, "scale or base do not follow from bounds");
  check(h.max_magnitude >= 1 && h.noise_bound >= 1, "an empty range of values");
  const Int128 parties = static_cast<Int128>(parameters.parties());
  const Int128 needed = parameters.weights() == ckks::WeightPolicy::kFree
                            ? parties * h.max_magnitude
                            : static_cast<Int128>(h.max_magnitude) + parties / 2;
  check(h.sum_bound >= needed, "the bound on sums is too small");
  check(parameters.level().classical >= 128 || insecure, "a set below 128 bits");
  check(std::isfinite(parameters.step()) && parameters.step() > 0, "a step that is no positive number");
}

void check_slots(const ckks::Parameters& parameters, double slot_scale) {
  if (!parameters.slots()) return;
  check(std::isfinite(parameters.max_error()) && parameters.max_error() > 0,
        "an error bound that is no positive number");
  check(slot_scale == 0 || std::fabs(parameters.total_scale() / slot_scale - 1) < 1e-12,
        "another scale than asked for");
  const double coarse = parameters.release_step();
  check(parameters.approximate() || (coarse >= parameters.max_error() && coarse <= 2 * parameters.max_error()),
        "released finer than the bound, or far coarser");
}

void check_blocks(const ckks::Parameters& parameters, std::uint64_t length) {
  const std::uint64_t blocks = parameters.block_count(length);
  check(static_cast<Uint128>(blocks) * parameters.block_weights() >= length, "the blocks do not hold the vector");
  check(blocks == 0 || static_cast<Uint128>(blocks - 1) * parameters.block_weights() < length, "a block too many");
  const std::uint64_t row = parameters.last_row_length(length);
  check(row >= ckks::Parameters::kShortestRow && row <= parameters.ring_dimension(), "a last row of impossible length");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  ckks::ParametersLiteral literal = take_literal(input);
  const auto length = input.take<std::uint64_t>();
  take_slots(input, literal);
  try {
    const ckks::Parameters parameters(literal);
    check_law(parameters, literal.insecure_for_comparison);
    check_slots(parameters, literal.slot_scale);
    check_blocks(parameters, length);
  } catch (const RequirementError&) {
  }
  return 0;
}
