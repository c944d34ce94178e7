#include "kernels/avx512/codec32.hpp"

#include "kernels/avx512/lanes.hpp"
#include "kernels/scalar/codec.hpp"

namespace pppml::kernels::avx512 {
namespace {

constexpr unsigned kFastBits = 31;
constexpr std::size_t kFastBytes = 62;  // of sixteen 31-bit residues

}  // namespace

// Two residues make one 62-bit item per 64-bit lane; lane j of the output takes the low bits of item j from bit 2 j on
// and fills up with the next item.
void pack_row(const PrimeTable<std::uint32_t>& prime, const std::uint32_t* in, std::size_t count, std::uint8_t* out) {
  std::size_t k = 0;
  if (prime.bits == kFastBits) {
    const Vector right = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
    const Vector left = _mm512_set_epi64(64, 50, 52, 54, 56, 58, 60, 62);
    const Vector low = _mm512_set1_epi64(0xffffffff);
    for (; k + kLanes <= count; k += kLanes, out += kFastBytes) {
      const Vector v = load(in + k);
      const Vector items = _mm512_or_si512(_mm512_and_si512(v, low), _mm512_slli_epi64(_mm512_srli_epi64(v, 32), 31));
      const Vector next = _mm512_alignr_epi64(items, items, 1);
      const Vector bytes = _mm512_or_si512(_mm512_srlv_epi64(items, right), _mm512_sllv_epi64(next, left));
      _mm512_mask_storeu_epi8(out, (std::uint64_t{1} << kFastBytes) - 1, bytes);
    }
  }
  if (k < count) scalar::pack_row(prime, in + k, count - k, out);
}

bool unpack_row(const PrimeTable<std::uint32_t>& prime, const std::uint8_t* in, std::size_t count, std::uint32_t* out) {
  std::size_t k = 0;
  __mmask16 invalid = 0;
  if (prime.bits == kFastBits) {
    const Vector q = broadcast(prime.modulus);
    const Vector left = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
    const Vector right = _mm512_set_epi64(50, 52, 54, 56, 58, 60, 62, 64);
    const Vector low31 = _mm512_set1_epi64(0x7fffffff), high31 = _mm512_set1_epi64(0x7fffffff00000000);
    for (; k + kLanes <= count; k += kLanes, in += kFastBytes) {
      const Vector bytes = _mm512_maskz_loadu_epi8((std::uint64_t{1} << kFastBytes) - 1, in);
      const Vector previous = _mm512_alignr_epi64(bytes, bytes, 7);
      const Vector items = _mm512_or_si512(_mm512_sllv_epi64(bytes, left), _mm512_srlv_epi64(previous, right));
      const Vector residues =
          _mm512_or_si512(_mm512_and_si512(items, low31), _mm512_and_si512(_mm512_slli_epi64(items, 1), high31));
      invalid = static_cast<__mmask16>(invalid | _mm512_cmpge_epu32_mask(residues, q));
      store(out + k, residues);
    }
  }
  const bool rest = k == count || scalar::unpack_row(prime, in, count - k, out + k);
  return rest && invalid == 0;
}

}  // namespace pppml::kernels::avx512
