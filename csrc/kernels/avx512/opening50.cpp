#include "kernels/avx512/opening50.hpp"

#include <algorithm>

#include "kernels/avx512/floats.hpp"
#include "kernels/avx512/words64.hpp"
#include "kernels/scalar/opening.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Word = std::uint64_t;

// Nearest multiples of an odd divisor for |x| < 2^50. The quotient is estimated in float64, where it is off by less
// than 1/2 + 2^-2 and so by at most one, and put right by its exact remainder.
class OddDivider {
 public:
  explicit OddDivider(std::int64_t divisor)
      : divisor_(_mm512_set1_epi64(divisor)),
        half_(_mm512_set1_epi64(divisor / 2)),
        negative_half_(_mm512_set1_epi64(-(divisor / 2))),
        inverse_(_mm512_set1_pd(1.0 / static_cast<double>(divisor))) {}

  __m512i divide(__m512i x, __m512i* remainder) const {
    const __m512i one = _mm512_set1_epi64(1);
    __m512i quotient = _mm512_cvtpd_epi64(_mm512_mul_pd(_mm512_cvtepi64_pd(x), inverse_));
    __m512i rest = _mm512_sub_epi64(x, _mm512_mullo_epi64(quotient, divisor_));
    const __mmask8 low = _mm512_cmpgt_epi64_mask(rest, half_), high = _mm512_cmplt_epi64_mask(rest, negative_half_);
    quotient = _mm512_mask_add_epi64(quotient, low, quotient, one);
    quotient = _mm512_mask_sub_epi64(quotient, high, quotient, one);
    rest = _mm512_mask_sub_epi64(rest, low, rest, divisor_);
    *remainder = _mm512_mask_add_epi64(rest, high, rest, divisor_);
    return quotient;
  }

 private:
  __m512i divisor_, half_, negative_half_;
  __m512d inverse_;
};

void store_lanes(const OpenTarget& target, std::size_t at, __mmask8 lanes, __m512i values) {
  if (target.integers != nullptr) {
    _mm512_mask_storeu_epi64(target.integers + at, lanes, values);
    return;
  }
  const __m512d restored = _mm512_mul_pd(_mm512_cvtepi64_pd(values), _mm512_set1_pd(target.step));
  if (target.singles != nullptr) _mm256_mask_storeu_ps(target.singles + at, lanes, _mm512_cvtpd_ps(restored));
  if (target.doubles != nullptr) _mm512_mask_storeu_pd(target.doubles + at, lanes, restored);
}

}  // namespace

bool rounds50(const OpenRequest<Word>& request) {
  // Squared residuals then stay below 2^38, so that sums over at most 2^15 of them are exact, as integers and as the
  // doubles of the scalar code.
  constexpr std::int64_t kLargestDelta = std::int64_t{1} << 20;
  constexpr unsigned kLargestLogDegree = 15;
  const bool odd = request.delta % 2 == 1 && (request.out.values_per_coefficient == 1 || request.out.base % 2 == 1);
  return odd && request.delta < kLargestDelta && request.ring->log_degree <= kLargestLogDegree;
}

void round_phases50(const OpenRequest<Word>& request, std::size_t b, std::size_t length, const std::uint64_t* row,
                    const std::uint64_t* c0, std::int64_t* coefficients) {
  const std::uint64_t modulus = request.ring->primes[0].modulus;
  const __m512i q = broadcast64(modulus), twice_q = broadcast64(2 * modulus), half_q = broadcast64(modulus / 2);
  const OddDivider by_delta(request.delta);
  __m512i largest = _mm512_setzero_si512(), squares = _mm512_setzero_si512();
  for_lanes<Word>(length, [&](std::size_t k, __mmask8 lanes) {
    const __m512i sum = _mm512_add_epi64(load_words(row + k, lanes), load_words(c0 + k, lanes));
    const __m512i residue = reduce_words(reduce_words(sum, twice_q), q);
    const __m512i phase = _mm512_mask_sub_epi64(residue, _mm512_cmpgt_epu64_mask(residue, half_q), residue, q);
    __m512i residual;
    const __m512i m = by_delta.divide(phase, &residual);
    largest = _mm512_max_epi64(largest, _mm512_abs_epi64(residual));
    squares = _mm512_add_epi64(squares, _mm512_mul_epi32(residual, residual));
    _mm512_mask_storeu_epi64(coefficients + k, lanes, m);
  });
  scalar::report_residuals(request.report, request.batch.first_block + b, _mm512_reduce_max_epi64(largest),
                           static_cast<double>(_mm512_reduce_add_epi64(squares)),
                           residual_limit(request.variance, length));
}

void store_values50(const OpenTarget& target, std::size_t block_values, std::size_t b, std::size_t length,
                    const std::int64_t* coefficients) {
  const OddDivider by_base(target.base);
  for_lanes<Word>(length, [&](std::size_t k, __mmask8 lanes) {
    __m512i rest = load_words(coefficients + k, lanes);
    for (unsigned t = 0; t < target.values_per_coefficient; ++t) {
      const std::size_t at = b * block_values + t * length + k;
      if (at >= target.count) break;
      __m512i digit = rest;
      if (t + 1 < target.values_per_coefficient) rest = by_base.divide(rest, &digit);
      const std::size_t left = std::min(target.count - at, kLanes64);
      store_lanes(target, at, static_cast<__mmask8>(lanes & ((1u << left) - 1)), digit);
    }
  });
}

}  // namespace pppml::kernels::avx512
