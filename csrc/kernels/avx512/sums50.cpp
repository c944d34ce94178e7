#include "kernels/avx512/sums50.hpp"

#include "base/buffer.hpp"
#include "kernels/avx512/floats.hpp"
#include "kernels/avx512/packing50.hpp"
#include "kernels/avx512/words64.hpp"
#include "kernels/rows.hpp"

namespace pppml::kernels::avx512 {

void add(const AddRequest<std::uint64_t>& request) {
  const RingTable<std::uint64_t>& ring = *request.ring;
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const __m512i q = broadcast64(ring.primes[l].modulus);
      const std::size_t start = block_offset(ring, b) + l * length;
      for_lanes<std::uint64_t>(length, [&](std::size_t k, __mmask8 lanes) {
        __m512i sum = load_words(request.inputs[0] + start + k, lanes);
        for (std::size_t i = 1; i < request.count; ++i) {
          sum = reduce_words(_mm512_add_epi64(sum, load_words(request.inputs[i] + start + k, lanes)), q);
        }
        _mm512_mask_storeu_epi64(request.out + start + k, lanes, sum);
      });
    }
  }
}

bool hop(const HopRequest<std::uint64_t>& request) {
  const RingTable<std::uint64_t>& ring = *request.ring;
  SecretBuffer<std::uint64_t> row(ring.degree());
  std::size_t at = 0;
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const PrimeTable<std::uint64_t>& prime = ring.primes[l];
      const __m512i q = broadcast64(prime.modulus);
      const std::uint64_t* mine = request.mine + block_offset(ring, b) + l * length;
      if (!unpack_row(prime, request.in + at, length, row.data())) return false;
      for_lanes<std::uint64_t>(length, [&](std::size_t k, __mmask8 lanes) {
        const __m512i sum = _mm512_add_epi64(load_words(row.data() + k, lanes), load_words(mine + k, lanes));
        _mm512_mask_storeu_epi64(row.data() + k, lanes, reduce_words(sum, q));
      });
      pack_row(prime, row.data(), length, request.out + at);
      at += packed_row_bytes(prime, length);
    }
  }
  return true;
}

}  // namespace pppml::kernels::avx512
