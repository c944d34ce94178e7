#include "kernels/avx512/product.hpp"

#include "kernels/avx512/butterflies.hpp"
#include "kernels/avx512/streams.hpp"

namespace pppml::kernels::avx512 {

ProductMaker::ProductMaker(const RingTable<std::uint32_t>& ring, std::size_t l, const Multiplier<std::uint32_t>& factor,
                           const std::uint8_t* public_key)
    : prime_(ring.primes[l]),
      log_degree_(ring.log_degree),
      selector_(static_cast<std::uint32_t>(l)),
      public_key_(public_key),
      factor_{factor.values + l * ring.degree(), factor.companions + l * ring.degree()},
      values_(ring.degree()),
      companions_(ring.degree()),
      twiddles_(ring.degree() / kBatchWords * kTwiddles) {
  transpose_chunks(factor_.values, values_);
  transpose_chunks(factor_.companions, companions_);
  fill_twiddles();
}

void ProductMaker::transpose_chunks(const std::uint32_t* in, SecretBuffer<std::uint32_t>& out) {
  for (std::size_t start = 0; start < out.size(); start += kBatchWords) {
    Vector x[kLanes];
    for (std::size_t i = 0; i < kLanes; ++i) x[i] = load(in + start + kLanes * i);
    transpose(x);
    for (std::size_t i = 0; i < kLanes; ++i) store(out.data() + start + kLanes * i, x[i]);
  }
}

// The butterfly of distance h between vectors w and w + h takes, in lane l, the root of group (256 c + 16 l + w) / 2h.
void ProductMaker::fill_twiddles() {
  const std::size_t degree = std::size_t{1} << log_degree_;
  const Vector lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  Twiddle* out = twiddles_.data();
  for (std::size_t chunk = 0; chunk < degree / kBatchWords; ++chunk) {
    for (unsigned level = 0; level < 4; ++level) {
      const Vector index = _mm512_slli_epi32(lanes, 3 - level);
      for (std::size_t w = 0; w < kLanes; w += std::size_t{2} << level, ++out) {
        const std::size_t at = (degree + chunk * kBatchWords + w) >> (level + 1);
        store(out->root, _mm512_i32gather_epi32(index, prime_.inverse_roots + at, 4));
        store(out->companion, _mm512_i32gather_epi32(index, prime_.inverse_root_companions + at, 4));
      }
    }
  }
}

// False when a candidate was rejected; `out` is then undefined.
bool ProductMaker::write_chunk(const ChaCha20& cipher, std::size_t chunk, std::uint32_t* out) const {
  const Vector q = broadcast(prime_.modulus), mask = broadcast((std::uint32_t{1} << prime_.bits) - 1);
  const std::size_t degree = std::size_t{1} << log_degree_;
  const std::uint32_t* values = values_.data() + chunk * kBatchWords;
  const std::uint32_t* companions = companions_.data() + chunk * kBatchWords;
  Vector x[kLanes];
  cipher.generate_columns(static_cast<std::uint32_t>(chunk * kLanes), x);
  __mmask16 rejected = 0;
#pragma GCC unroll 16
  for (std::size_t w = 0; w < kLanes; ++w) {
    const Vector candidate = _mm512_and_si512(x[w], mask);
    rejected = static_cast<__mmask16>(rejected | _mm512_cmpge_epu32_mask(candidate, q));
    x[w] = multiply_shoup(candidate, load(values + kLanes * w), load(companions + kLanes * w), q);
  }
  const Twiddle* twiddle = twiddles_.data() + chunk * kTwiddles;
#pragma GCC unroll 4
  for (std::size_t half = 1; half < kLanes; half *= 2) {
#pragma GCC unroll 8
    for (std::size_t w = 0; w < kLanes; w += 2 * half, ++twiddle) {
      const Vector root = load(twiddle->root), companion = load(twiddle->companion);
#pragma GCC unroll 8
      for (std::size_t i = w; i < w + half; ++i) inverse_butterfly(x[i], x[i + half], root, companion, q);
    }
  }
  transpose(x);
#pragma GCC unroll 4
  for (std::size_t half = 1; half < kLanes; half *= 2) {
    const std::size_t first = degree / (2 * kLanes * half) + chunk * kLanes / (2 * half);
#pragma GCC unroll 8
    for (std::size_t w = 0; w < kLanes; w += 2 * half) {
      const std::size_t at = first + w / (2 * half);
      const Vector root = broadcast(prime_.inverse_roots[at]),
                   companion = broadcast(prime_.inverse_root_companions[at]);
#pragma GCC unroll 8
      for (std::size_t i = w; i < w + half; ++i) inverse_butterfly(x[i], x[i + half], root, companion, q);
    }
  }
#pragma GCC unroll 16
  for (std::size_t i = 0; i < kLanes; ++i) store(out + kLanes * i, x[i]);
  return rejected == 0;
}

void ProductMaker::write(std::uint64_t block, std::uint32_t* row) const {
  const std::size_t degree = std::size_t{1} << log_degree_;
  const Vector q = broadcast(prime_.modulus);
  const ChaCha20 cipher(public_key_, selector_, block);
  bool accepted = true;
  for (std::size_t chunk = 0; chunk < degree / kBatchWords; ++chunk) {
    accepted &= write_chunk(cipher, chunk, row + chunk * kBatchWords);
  }
  if (accepted) {
    inverse_large(prime_, log_degree_, kBatchWords, row);
    return;
  }
  // One row of 2048 in eleven holds a rejected candidate at p31: it is expanded, multiplied and transformed in turn.
  uniform(prime_, log_degree_, public_key_, selector_, block, row);
  for (std::size_t k = 0; k < degree; k += kLanes) {
    store(row + k, multiply_shoup(load(row + k), load(factor_.values + k), load(factor_.companions + k), q));
  }
  inverse_ntt_unscaled(prime_, log_degree_, row);
}

}  // namespace pppml::kernels::avx512
