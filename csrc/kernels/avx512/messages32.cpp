#include "kernels/avx512/messages32.hpp"

#include "kernels/avx512/floats.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Word = std::uint32_t;

__m512i load_wide(const std::int32_t* p, __mmask8 lanes) {
  return _mm512_cvtepi32_epi64(_mm256_maskz_loadu_epi32(lanes, p));
}
__m512i load_wide(const std::int64_t* p, __mmask8 lanes) {
  return _mm512_maskz_loadu_epi64(lanes, p);
}

// |m| < Q/2 -> its remainder by q next to zero. The quotient by q may be estimated in float64: it stays below 2^30 and
// the estimate is off by less than 2^-20, so the remainder is within q (1/2 + 2^-20), and 32 bits of it are enough.
struct Reducer {
  __m256i q;
  __m512d inverse;

  __m256i reduce(__m256i low, __m512d m) const {
    const __m256i quotient = _mm512_cvtpd_epi32(_mm512_mul_pd(m, inverse));
    return _mm256_sub_epi32(low, _mm256_mullo_epi32(quotient, q));
  }
};

}  // namespace

MessageEncoder::MessageEncoder(const MessageRequest<Word>& request)
    : request_(request),
      simple_(request.message.codec->single_precision && request.message.codec->values_per_coefficient == 1 &&
              request.ring->prime_count == 1),
      quantizer_(request.message),
      rows_(request.ring->block_words()) {
  const Codec& codec = *request.message.codec;
  if (!codec.single_precision) {
    double_values_ = SecretBuffer<std::int64_t>(codec.block_values);
  } else if (!simple_) {
    single_values_ = SecretBuffer<std::int32_t>(codec.block_values);
  }
}

template <class Int>
void MessageEncoder::compose(const Int* values, std::size_t length) {
  const RingTable<Word>& ring = *request_.ring;
  const Codec& codec = *request_.message.codec;
  const __m512i base = _mm512_set1_epi64(codec.base), delta = _mm512_set1_epi64(codec.delta);
  Reducer reducers[2];
  for (unsigned l = 0; l < ring.prime_count; ++l) {
    const Word q = ring.primes[l].modulus;
    reducers[l] = {_mm256_set1_epi32(static_cast<int>(q)), every_lane(1 / static_cast<double>(q))};
  }
  for_lanes<std::int64_t>(length, [&](std::size_t k, __mmask8 lanes) {
    unsigned t = codec.values_per_coefficient - 1;
    __m512i m = load_wide(values + t * length + k, lanes);
    while (t-- > 0) m = _mm512_add_epi64(_mm512_mullo_epi64(m, base), load_wide(values + t * length + k, lanes));
    m = _mm512_mullo_epi64(m, delta);
    const __m256i low = _mm512_cvtepi64_epi32(m);
    std::int32_t* out = rows_.data() + k;
    if (ring.prime_count == 1) {
      return _mm256_mask_storeu_epi32(out, lanes, low);
    }
    const __m512d rounded = _mm512_cvtepi64_pd(m);
    _mm256_mask_storeu_epi32(out, lanes, reducers[0].reduce(low, rounded));
    _mm256_mask_storeu_epi32(out + ring.degree(), lanes, reducers[1].reduce(low, rounded));
  });
}

const std::int32_t* MessageEncoder::encode(std::size_t b) {
  const Codec& codec = *request_.message.codec;
  const std::size_t length = row_length(*request_.ring, request_.batch, b);
  const std::size_t first = (request_.batch.first_block + b) * codec.block_values;
  const std::size_t count = length * codec.values_per_coefficient;
  if (simple_) {
    quantizer_.write(first, count, rows_.data());
  } else if (codec.single_precision) {
    quantizer_.write(first, count, single_values_.data());
    compose(single_values_.data(), length);
  } else {
    quantizer_.write(first, count, double_values_.data());
    compose(double_values_.data(), length);
  }
  return rows_.data();
}

void MessageEncoder::announce(std::size_t b, Prefetcher& soon) {
  const std::size_t values = request_.message.codec->block_values;
  if (b < request_.batch.blocks) quantizer_.announce((request_.batch.first_block + b) * values, values, soon);
}

}  // namespace pppml::kernels::avx512
