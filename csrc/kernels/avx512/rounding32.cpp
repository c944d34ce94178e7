#include "kernels/avx512/rounding32.hpp"

#include <algorithm>

#include "base/modular.hpp"
#include "kernels/avx512/floats.hpp"
#include "kernels/avx512/lanes.hpp"
#include "kernels/scalar/opening.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Word = std::uint32_t;

// Below this sums of N <= 2^15 squared residuals stay within 2^53: exact in any order.
constexpr std::int64_t kDeltaLimit = std::int64_t{1} << 20;

// Eight values at a time to where they go.
class Sink {
 public:
  explicit Sink(const OpenTarget& target) : target_(target), step_(every_lane(target.step)) {}

  // `at` is the number of the first value; `digits` are integers that a double holds, and never -0.
  void store(std::size_t at, __mmask8 lanes, __m512d digits) const {
    lanes = within(at, lanes);
    if (target_.integers != nullptr) _mm512_mask_storeu_epi64(target_.integers + at, lanes, _mm512_cvtpd_epi64(digits));
    store_restored(at, lanes, digits);
  }
  void store(std::size_t at, __mmask8 lanes, __m512i digits) const {
    lanes = within(at, lanes);
    if (target_.integers != nullptr) _mm512_mask_storeu_epi64(target_.integers + at, lanes, digits);
    store_restored(at, lanes, _mm512_cvtepi64_pd(digits));
  }

 private:
  __mmask8 within(std::size_t at, __mmask8 lanes) const {
    if (at + 8 <= target_.count) return lanes;
    return static_cast<__mmask8>(at < target_.count ? lanes & ((1u << (target_.count - at)) - 1) : 0);
  }

  void store_restored(std::size_t at, __mmask8 lanes, __m512d digits) const {
    const __m512d restored = _mm512_mul_pd(digits, step_);
    if (target_.singles != nullptr) _mm256_mask_storeu_ps(target_.singles + at, lanes, _mm512_cvtpd_ps(restored));
    if (target_.doubles != nullptr) _mm512_mask_storeu_pd(target_.doubles + at, lanes, restored);
  }

  const OpenTarget& target_;
  __m512d step_;
};

// Residues of eight coefficients -> integers in (-Q/2, Q/2), of which a double holds those of one prime.
class OnePrimeLift {
 public:
  explicit OnePrimeLift(const RingTable<Word>& ring)
      : q_(_mm256_set1_epi32(static_cast<int>(ring.primes[0].modulus))), half_(_mm256_srli_epi32(q_, 1)) {}

  __m512d phases(const Word* row, __mmask8 lanes) const {
    const __m256i r = _mm256_maskz_loadu_epi32(lanes, row);
    return _mm512_cvtepi32_pd(_mm256_mask_sub_epi32(r, _mm256_cmpgt_epi32_mask(r, half_), r, q_));
  }

 private:
  __m256i q_, half_;
};

class TwoPrimeLift {
 public:
  explicit TwoPrimeLift(const RingTable<Word>& ring)
      : degree_(ring.degree()),
        q0_(wide(ring.primes[0].modulus)),
        q1_(wide(ring.primes[1].modulus)),
        garner_(wide(ring.garner)),
        companion_(wide(ring.garner_companion)),
        product_(_mm512_mul_epu32(q0_, q1_)),
        half_(_mm512_srli_epi64(product_, 1)) {}

  // Garner: x = r0 + q0 * ((r1 - r0) / q0 mod q1), with q0 < 2 q1.
  __m512i phases(const Word* rows, __mmask8 lanes) const {
    const __m512i r0 = residues(rows, lanes);
    const __m512i difference = subtract_mod(residues(rows + degree_, lanes), reduce_once(r0, q1_), q1_);
    const __m512i quotient = _mm512_srli_epi64(_mm512_mul_epu32(difference, companion_), 32);
    const __m512i digit = _mm512_sub_epi64(_mm512_mul_epu32(difference, garner_), _mm512_mul_epu32(quotient, q1_));
    const __m512i x = _mm512_add_epi64(r0, _mm512_mul_epu32(reduce_once(digit, q1_), q0_));
    return _mm512_mask_sub_epi64(x, _mm512_cmpgt_epi64_mask(x, half_), x, product_);
  }

 private:
  static __m512i wide(Word value) { return _mm512_set1_epi64(static_cast<long long>(value)); }
  static __m512i residues(const Word* row, __mmask8 lanes) {
    return _mm512_cvtepu32_epi64(_mm256_maskz_loadu_epi32(lanes, row));
  }

  std::size_t degree_;
  __m512i q0_, q1_, garner_, companion_, product_, half_;
};

// A phase is the sum of D_t v_t for D_t = delta base^t, plus the residual. From the largest D down each v_t is the
// nearest quotient, since what the lower digits and the residual amount to is at most (D_t - 1) / 2. All D_t are odd,
// so there are no ties.
constexpr double kLeastDivisor = 64, kDivisorLimit = 0x1p48;

struct Divisor {
  __m512d value, inverse;

  // rest -> its nearest quotient, and what remains of it. Both are exact for |rest| < 2^52: the estimate is off by
  // |rest| / D 2^-53 < 1 / (2 D), and no quotient is nearer to a tie. Adding 1.5 * 2^52 rounds to integers and leaves
  // no -0.
  __m512d divide(__m512d* rest) const {
    const __m512d magic = every_lane(0x1.8p52);
    const __m512d quotient = _mm512_sub_pd(_mm512_fmadd_pd(*rest, inverse, magic), magic);
    *rest = _mm512_fnmadd_pd(quotient, value, *rest);
    return quotient;
  }

  // The first division, of phases below 2^31 or, with D in [64, 2^48), below 2^61: there the first estimate is off by
  // |phase| / D 3.01 2^-53 < 12.1, so the second one divides a rest of at most 12.6 D < 2^52.
  __m512d divide(__m512d phase, __m512d* rest) const {
    *rest = phase;
    return divide(rest);
  }
  __m512i divide(__m512i phase, __m512d* rest) const {
    const __m512i estimate = _mm512_cvtpd_epi64(_mm512_mul_pd(_mm512_cvtepi64_pd(phase), inverse));
    *rest = _mm512_cvtepi64_pd(_mm512_sub_epi64(phase, _mm512_mullo_epi64(estimate, _mm512_cvtpd_epi64(value))));
    const __m512d correction = divide(rest);
    return _mm512_add_epi64(estimate, _mm512_cvtpd_epi64(correction));
  }
};

double divisor(const OpenRequest<Word>& request, unsigned t) {
  double value = static_cast<double>(request.delta);
  for (unsigned i = 0; i < t; ++i) value *= static_cast<double>(request.out.base);
  return value;
}

template <class Lift, unsigned kValues>
void write_values(const OpenRequest<Word>& request, std::size_t b, std::size_t length, const Word* rows) {
  const Sink sink(request.out);
  const Lift lift(*request.ring);
  Divisor divisors[kValues];
  for (unsigned t = 0; t < kValues; ++t) {
    divisors[t] = {every_lane(divisor(request, t)), every_lane(1 / divisor(request, t))};
  }
  const std::size_t start = b * request.ring->degree() * kValues;
  __m512d largest = _mm512_setzero_pd(), squares = _mm512_setzero_pd();
  for_lanes<std::int64_t>(length, [&](std::size_t k, __mmask8 lanes) {
    __m512d rest;
    unsigned t = kValues - 1;
    sink.store(start + t * length + k, lanes, divisors[t].divide(lift.phases(rows + k, lanes), &rest));
    while (t-- > 0) sink.store(start + t * length + k, lanes, divisors[t].divide(&rest));
    largest = _mm512_max_pd(largest, magnitude(rest));
    squares = _mm512_fmadd_pd(rest, rest, squares);
  });
  scalar::report_residuals(request.report, request.batch.first_block + b,
                           static_cast<std::int64_t>(_mm512_reduce_max_pd(largest)), _mm512_reduce_add_pd(squares),
                           residual_limit(request.variance, length));
}

template <class Lift>
auto writer(unsigned values) {
  return values == 1 ? write_values<Lift, 1> : values == 2 ? write_values<Lift, 2> : write_values<Lift, 3>;
}

bool vectors_suffice(const OpenRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  const unsigned values = request.out.values_per_coefficient;
  if (request.delta % 2 == 0 || request.delta >= kDeltaLimit) return false;
  if (values > 1 && request.out.base != 2 * request.out.half + 1) return false;
  if (divisor(request, 0) < kLeastDivisor || divisor(request, values - 1) >= kDivisorLimit) return false;
  return ring.prime_count == 1 || ring.primes[0].modulus / 2 < ring.primes[1].modulus;
}

}  // namespace

PhaseRounder::PhaseRounder(const OpenRequest<Word>& request) : request_(request) {
  if (vectors_suffice(request)) {
    const unsigned values = request.out.values_per_coefficient;
    write_ = request.ring->prime_count == 1 ? writer<OnePrimeLift>(values) : writer<TwoPrimeLift>(values);
  } else {
    coefficients_ = SecretBuffer<std::int64_t>(request.ring->degree());
  }
}

void PhaseRounder::write(std::size_t b, std::size_t length, const Word* rows) {
  if (write_ != nullptr) return write_(request_, b, length, rows);
  scalar::round_phases(request_, b, length, rows, coefficients_.data());
  scalar::store_values(request_.out, request_.ring->degree() * request_.out.values_per_coefficient, b, length,
                       coefficients_.data());
}

}  // namespace pppml::kernels::avx512
