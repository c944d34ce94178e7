#include "kernels/avx512/tags.hpp"

#include "base/modular.hpp"
#include "kernels/avx512/ifma/ntt50.hpp"
#include "kernels/avx512/lanes.hpp"
#include "kernels/scalar/stream.hpp"

namespace pppml::kernels::avx512 {
namespace {

// out[k] += in[k] * w mod q
void multiply_add(const PrimeTable<std::uint32_t>& prime, std::uint32_t w, std::size_t count, const std::uint32_t* in,
                  std::uint32_t* out) {
  const Vector q = broadcast(prime.modulus);
  const Factor factor = broadcast_factor(w, shoup_companion(w, prime.modulus));
  for_lanes(count, [&](std::size_t k, __mmask16 lanes) {
    const Vector product = multiply_shoup(load_part(in + k, lanes), factor, q);
    _mm512_mask_storeu_epi32(out + k, lanes, add_mod(load_part(out + k, lanes), product, q));
  });
}

void multiply_add(const PrimeTable<std::uint64_t>& prime, std::uint64_t w, std::size_t count, const std::uint64_t* in,
                  std::uint64_t* out) {
  ifma::multiply_add(prime, w, shoup_companion(w, prime.modulus), count, in, out);
}

template <class Word>
void tag_rows(const TagRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  constexpr unsigned kLogTagRows = 1;
  static_assert(kTagRows == 1u << kLogTagRows);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const PrimeTable<Word>& prime = ring.primes[l];
      Word rho[kTagRows];
      scalar::uniform(prime, kLogTagRows, request.key, static_cast<std::uint32_t>(l), request.batch.first_block + b,
                      rho);
      const Word* in = request.in + block_offset(ring, b) + l * length;
      for (unsigned r = 0; r < kTagRows; ++r) {
        multiply_add(prime, rho[r], length, in, request.tags + (r * ring.prime_count + l) * ring.degree());
      }
    }
  }
}

}  // namespace

void tag(const TagRequest<std::uint32_t>& request) {
  tag_rows(request);
}

void tag50(const TagRequest<std::uint64_t>& request) {
  tag_rows(request);
}

}  // namespace pppml::kernels::avx512
