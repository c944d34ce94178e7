// secret_from_coefficients: every backend accepts exactly the coefficients a roster's secrets can add up to, gives them
// back, and opens alike with them. Input: set (1 byte), then changes (index of 2 bytes, coefficient of 8).
#include "base/check.hpp"
#include "kernels/gaussian_tables.hpp"
#include "tests/fuzz/sets.hpp"

namespace {

using namespace pppml;
using fuzz::check;

// The collective secret's table ends at 43 (kernels/gaussian_tables.hpp); a coefficient of the sum stays within as many
// times the parties, and a ternary one within the parties.
bool plausible(const fuzz::Set& set, const std::vector<std::int64_t>& coefficients) {
  const bool collective = set.scalar().parameters().keys() == ckks::KeyMode::kCollective;
  const auto bound = static_cast<std::int64_t>(set.parties) *
                     (collective ? std::int64_t{kernels::tables::kCollectiveSecretLargest} : 1);
  return std::all_of(coefficients.begin(), coefficients.end(),
                     [&](std::int64_t value) { return value >= -bound && value <= bound; });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const fuzz::Set& set = *fuzz::sets()[input.take<std::uint8_t>() % fuzz::sets().size()];
  std::vector<std::int64_t> coefficients = set.key;
  while (input.left() > 0) {
    const std::size_t at = input.take<std::uint16_t>() % coefficients.size();
    coefficients[at] = input.take<std::int64_t>();
  }
  const bool valid = plausible(set, coefficients);
  kernels::OpenReport oracle;
  std::vector<std::int64_t> expected(set.opened.size()), values(expected.size());
  for (std::size_t i = set.backends.size(); i-- > 0;) {  // scalar, the oracle, is the last
    const ckks::Scheme& scheme = *set.backends[i].scheme;
    std::unique_ptr<ckks::SecretKey> key;
    try {
      key = scheme.secret_from_coefficients(coefficients.data());
    } catch (const RequirementError&) {
    }
    check((key != nullptr) == valid, "an impossible key coefficient was accepted, or a possible one refused");
    if (!valid) continue;
    check(std::equal(coefficients.begin(), coefficients.end(), key->coefficients().begin()), "a key changed");
    const bool is_public = !set.c1.empty();
    const kernels::OpenReport report = scheme.open(
        *key, set.all(), set.parties, {nullptr, set.c0.data()}, {nullptr, is_public ? set.c1.data() : nullptr},
        is_public ? nullptr : fuzz::fixed_key(92), {values.data(), nullptr, nullptr});
    if (i + 1 == set.backends.size()) {
      oracle = report;
      expected = values;
      check(coefficients == set.key || report.block_refused, "a false key opens");
      check(coefficients != set.key || (!report.block_refused && values == set.opened), "the true key does not open");
    }
    check(report.block_refused == oracle.block_refused && report.largest_residual == oracle.largest_residual,
          "a backend reports other residuals than scalar");
    check(values == expected, "a backend opens other values than scalar");
  }
  return 0;
}
