#include "kernels/scalar/opening.hpp"

#include <algorithm>

#include "base/modular.hpp"

namespace pppml::kernels::scalar {
namespace {

// Residues of one coefficient -> the integer in (-Q/2, Q/2).
template <class Word>
std::int64_t lift_centred(const RingTable<Word>& ring, Word r0, Word r1) {
  const std::uint64_t q0 = ring.primes[0].modulus;
  if (ring.prime_count == 1) return static_cast<std::int64_t>(r0) - where(r0 > q0 / 2, static_cast<std::int64_t>(q0));
  // Garner: x = r0 + q0 * ((r1 - r0) / q0 mod q1); q0 < 2^31 and q0 * q1 < 2^62.
  const PrimeTable<Word>& second = ring.primes[1];
  const Word q1 = second.modulus;
  const Word r0_mod_q1 = reduce_signed<Word>(static_cast<std::int64_t>(r0), q1, second.ratio, second.lift);
  const Word digit = multiply_shoup(subtract_mod(r1, r0_mod_q1, q1), ring.garner, ring.garner_companion, q1);
  const std::uint64_t product = q0 * static_cast<std::uint64_t>(q1);
  const std::uint64_t x = static_cast<std::uint64_t>(r0) + q0 * static_cast<std::uint64_t>(digit);
  return static_cast<std::int64_t>(x) - where(x > product / 2, static_cast<std::int64_t>(product));
}

}  // namespace

void report_residuals(OpenReport* report, std::uint64_t block, std::int64_t largest, double squares, double limit) {
  report->largest_residual = std::max(report->largest_residual, largest);
  if (squares > limit && !report->block_refused) {
    report->block_refused = true;
    report->worst_block = block;
  }
}

void store_values(const OpenTarget& target, std::size_t block_values, std::size_t b, std::size_t length,
                  const std::int64_t* coefficients) {
  const PublicDivisor base(target.base);
  for (std::size_t k = 0; k < length; ++k) {
    std::int64_t rest = coefficients[k];
    for (unsigned t = 0; t < target.values_per_coefficient; ++t) {
      std::int64_t digit = rest;
      if (t + 1 < target.values_per_coefficient) {
        // Centred remainder: base = 2 * half + 1, so the digits lie in [-half, half].
        digit = rest - base.divide(rest) * target.base;
        digit += where(digit < -target.half, target.base);
        digit -= where(digit > target.half, target.base);
        rest = base.divide(rest - digit);
      }
      const std::size_t at = b * block_values + t * length + k;
      if (at >= target.count) break;
      const double restored = static_cast<double>(digit) * target.step;
      if (target.integers != nullptr) target.integers[at] = digit;
      if (target.singles != nullptr) target.singles[at] = static_cast<float>(restored);
      if (target.doubles != nullptr) target.doubles[at] = restored;
    }
  }
}

template <class Word>
void round_phases(const OpenRequest<Word>& request, std::size_t b, std::size_t length, const Word* rows,
                  std::int64_t* coefficients) {
  const RingTable<Word>& ring = *request.ring;
  std::int64_t largest = 0;
  double squares = 0;
  // Halves go away from zero: delta is odd or the residual check refuses the tie.
  const PublicDivisor delta(request.delta);
  for (std::size_t k = 0; k < length; ++k) {
    const Word second = ring.prime_count == 2 ? rows[ring.degree() + k] : Word{0};
    const std::int64_t phase = lift_centred(ring, rows[k], second);
    coefficients[k] = delta.divide_rounded(phase);
    const std::int64_t residual = phase - coefficients[k] * request.delta;
    largest = std::max(largest, residual < 0 ? -residual : residual);
    squares += static_cast<double>(residual) * static_cast<double>(residual);
  }
  report_residuals(request.report, request.batch.first_block + b, largest, squares,
                   residual_limit(request.variance, length));
}

template void round_phases(const OpenRequest<std::uint32_t>&, std::size_t, std::size_t, const std::uint32_t*,
                           std::int64_t*);
template void round_phases(const OpenRequest<std::uint64_t>&, std::size_t, std::size_t, const std::uint64_t*,
                           std::int64_t*);

}  // namespace pppml::kernels::scalar
