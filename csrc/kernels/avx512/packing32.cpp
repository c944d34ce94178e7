#include "kernels/avx512/packing32.hpp"

#include "kernels/scalar/codec.hpp"

namespace pppml::kernels::avx512 {

void pack_row(const PrimeTable<std::uint32_t>& prime, const std::uint32_t* in, std::size_t count, std::uint8_t* out) {
  std::size_t k = 0;
  if (prime.bits == kPackedBits) {
    for (; k + kLanes <= count; k += kLanes, out += kPackedBytes) pack16(load(in + k), out);
  }
  if (k < count) scalar::pack_row(prime, in + k, count - k, out);
}

bool unpack_row(const PrimeTable<std::uint32_t>& prime, const std::uint8_t* in, std::size_t count, std::uint32_t* out) {
  std::size_t k = 0;
  Vector largest = _mm512_setzero_si512();
  if (prime.bits == kPackedBits) {
    for (; k + kLanes <= count; k += kLanes, in += kPackedBytes) {
      const Vector residues = unpack16(in);
      largest = _mm512_max_epu32(largest, residues);
      store(out + k, residues);
    }
  }
  const bool rest = k == count || scalar::unpack_row(prime, in, count - k, out + k);
  return rest && _mm512_cmpge_epu32_mask(largest, broadcast(prime.modulus)) == 0;
}

}  // namespace pppml::kernels::avx512
