#include "kernels/avx2/opening.hpp"

#include <algorithm>
#include <optional>

#include "kernels/avx2/codec32.hpp"
#include "kernels/avx2/product.hpp"
#include "kernels/rows.hpp"
#include "kernels/scalar/fused.hpp"
#include "kernels/scalar/opening.hpp"

namespace pppml::kernels::avx2 {
namespace {

// c0 + INTT(c1 * s), row by row.
class PhaseMaker {
 public:
  explicit PhaseMaker(const OpenRequest<Word>& request)
      : request_(request),
        c0_(request.c0, unpack_row),
        c1_(request.c1, unpack_row),
        inverse_(make_roots(*request.ring, ColumnRoots::Direction::kInverse)),
        scratch_(request.ring->degree()) {
    if (request.c1.given()) forward_ = make_roots(*request.ring, ColumnRoots::Direction::kForward);
    products_.reserve(inverse_.size());
    for (std::size_t l = 0; l < inverse_.size(); ++l) {
      products_.emplace_back(*request.ring, l, request.secret, inverse_[l]);
    }
  }

  // Row l of block b; false on an invalid residue.
  bool write(std::size_t b, std::size_t l, Word* row) {
    const Ring32& ring = *request_.ring;
    const Prime32& prime = ring.primes[l];
    if (request_.c1.given()) {
      const Word* c1 = c1_.next(prime, ring.degree(), row);
      if (c1 == nullptr) return false;
      std::copy(c1, c1 + ring.degree(), scratch_.data());
      forward_to_columns(forward_[l], scratch_.data());
      products_[l].multiply(scratch_.data(), row);
    } else {
      products_[l].expand_and_multiply(request_.public_key, request_.batch.first_block + b, row);
    }
    const std::size_t length = row_length(ring, request_.batch, b);
    const Word* c0 = c0_.next(prime, length, scratch_.data());
    if (c0 == nullptr) return false;
    const Vector q = broadcast(prime.modulus);
    for_lanes(length, [&](std::size_t k, auto lanes) {
      store(row + k, lanes, add_mod(load(row + k, lanes), load(c0 + k, lanes), q));
    });
    return true;
  }

 private:
  const OpenRequest<Word>& request_;
  RowReader<Word> c0_, c1_;
  std::vector<ColumnRoots> inverse_, forward_;
  std::vector<ProductMaker> products_;
  SecretBuffer<Word> scratch_;
};

// One prime, one value per coefficient, phases within 31 bits: the quotient by delta is estimated in float32 and put
// right by its exact remainder. The quotient lies below 2^22 and three roundings leave the estimate within 3 * 2^-24 of
// it: it is off by at most one.
class SimpleOpener {
 public:
  static bool fits(const OpenRequest<Word>& request) {
    constexpr std::int64_t kLargestQuotient = std::int64_t{1} << 22;
    // Below this sums of N <= 2^15 squared residuals stay within 2^53: exact in any order.
    constexpr std::int64_t kDeltaLimit = std::int64_t{1} << 20;
    return request.ring->prime_count == 1 && request.out.values_per_coefficient == 1 && request.delta % 2 == 1 &&
           request.delta < kDeltaLimit && request.ring->primes[0].modulus / request.delta < 2 * kLargestQuotient;
  }

  explicit SimpleOpener(const OpenRequest<Word>& request) : request_(request), values_(request.ring->degree()) {}

  void write(std::size_t b, std::size_t length, const Word* row) {
    round(b, length, row);
    const OpenTarget& out = request_.out;
    const std::size_t at = b * request_.ring->degree();
    const std::size_t count = at < out.count ? std::min(length, out.count - at) : 0;
    const std::int32_t* values = values_.data();
    const double step = out.step;
    if (out.integers != nullptr) std::copy(values, values + count, out.integers + at);
    for (std::size_t k = 0; out.singles != nullptr && k < count; ++k) {
      out.singles[at + k] = static_cast<float>(static_cast<double>(values[k]) * step);
    }
    for (std::size_t k = 0; out.doubles != nullptr && k < count; ++k) {
      out.doubles[at + k] = static_cast<double>(values[k]) * step;
    }
  }

 private:
  void round(std::size_t b, std::size_t length, const Word* row) {
    const Word modulus = request_.ring->primes[0].modulus;
    const auto delta_word = static_cast<std::uint32_t>(request_.delta);
    const Vector q = broadcast(modulus), half_q = broadcast(modulus / 2);
    const Vector delta = broadcast(delta_word), half = broadcast(delta_word / 2);
    const Vector negative_half = _mm256_sub_epi32(_mm256_setzero_si256(), half);
    const __m256 inverse = _mm256_set1_ps(1.0f / static_cast<float>(request_.delta));
    Vector largest = _mm256_setzero_si256(), squares = _mm256_setzero_si256();
    for_lanes(length, [&](std::size_t k, auto lanes) {
      const Vector residue = load(row + k, lanes);
      const Vector phase = _mm256_sub_epi32(residue, _mm256_and_si256(_mm256_cmpgt_epi32(residue, half_q), q));
      Vector m = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(phase), inverse));
      Vector rest = _mm256_sub_epi32(phase, _mm256_mullo_epi32(m, delta));
      const Vector low = _mm256_cmpgt_epi32(rest, half), high = _mm256_cmpgt_epi32(negative_half, rest);
      m = _mm256_add_epi32(_mm256_sub_epi32(m, low), high);
      rest = _mm256_sub_epi32(rest, _mm256_and_si256(low, delta));
      rest = _mm256_add_epi32(rest, _mm256_and_si256(high, delta));
      largest = _mm256_max_epi32(largest, _mm256_abs_epi32(rest));
      const Vector odd = _mm256_srli_epi64(rest, 32);
      squares = _mm256_add_epi64(squares, _mm256_mul_epi32(rest, rest));
      squares = _mm256_add_epi64(squares, _mm256_mul_epi32(odd, odd));
      store(values_.data() + k, lanes, m);
    });
    alignas(32) std::int32_t most[kLanes];
    alignas(32) std::int64_t sums[kLanes / 2];
    store(most, largest);
    store(sums, squares);
    scalar::report_residuals(request_.report, request_.batch.first_block + b, *std::max_element(most, most + kLanes),
                             static_cast<double>(sums[0] + sums[1] + sums[2] + sums[3]),
                             residual_limit(request_.variance, length));
  }

  const OpenRequest<Word>& request_;
  SecretBuffer<std::int32_t> values_;
};

}  // namespace

void open(const OpenRequest<Word>& request) {
  const Ring32& ring = *request.ring;
  if (ring.log_degree < kSmallestLogDegree) return scalar::table<Word>().open(request);
  PhaseMaker phases(request);
  std::optional<SimpleOpener> simple;
  if (SimpleOpener::fits(request)) simple.emplace(request);
  SecretBuffer<Word> rows(ring.block_words());
  SecretBuffer<std::int64_t> coefficients(simple ? 0 : ring.degree());
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      if (!phases.write(b, l, rows.data() + l * ring.degree())) {
        request.report->invalid_residue = true;
        return;
      }
    }
    if (simple) {
      simple->write(b, length, rows.data());
    } else {
      scalar::round_phases(request, b, length, rows.data(), coefficients.data());
      scalar::store_values(request.out, ring.degree() * request.out.values_per_coefficient, b, length,
                           coefficients.data());
    }
  }
}

}  // namespace pppml::kernels::avx2
