// Rows of residues on the wire, and sixteen 31-bit residues as 62 bytes of it.
#pragma once

#include "kernels/avx512/lanes.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

constexpr unsigned kPackedBits = 31;
constexpr std::size_t kPackedBytes = 62;
constexpr std::uint64_t kPackedMask = (std::uint64_t{1} << kPackedBytes) - 1;

// Two residues make one 62-bit item per 64-bit lane; lane j of the output takes the low bits of item j from bit 2 j on
// and fills up with the next item.
inline void pack16(Vector residues, std::uint8_t* out) {
  const Vector right = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
  const Vector left = _mm512_set_epi64(64, 50, 52, 54, 56, 58, 60, 62);
  const Vector low = _mm512_set1_epi64(0xffffffff);
  const Vector items =
      _mm512_or_si512(_mm512_and_si512(residues, low), _mm512_slli_epi64(_mm512_srli_epi64(residues, 32), 31));
  const Vector next = _mm512_alignr_epi64(items, items, 1);
  const Vector bytes = _mm512_or_si512(_mm512_srlv_epi64(items, right), _mm512_sllv_epi64(next, left));
  _mm512_mask_storeu_epi8(out, kPackedMask, bytes);
}

// Any 31-bit numbers: the caller checks them against its prime.
inline Vector unpack16(const std::uint8_t* in) {
  const Vector left = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
  const Vector right = _mm512_set_epi64(50, 52, 54, 56, 58, 60, 62, 64);
  const Vector low31 = _mm512_set1_epi64(0x7fffffff), high31 = _mm512_set1_epi64(0x7fffffff00000000);
  const Vector bytes = _mm512_maskz_loadu_epi8(kPackedMask, in);
  const Vector previous = _mm512_alignr_epi64(bytes, bytes, 7);
  const Vector items = _mm512_or_si512(_mm512_sllv_epi64(bytes, left), _mm512_srlv_epi64(previous, right));
  return _mm512_or_si512(_mm512_and_si512(items, low31), _mm512_and_si512(_mm512_slli_epi64(items, 1), high31));
}

void pack_row(const PrimeTable<std::uint32_t>& prime, const std::uint32_t* in, std::size_t count, std::uint8_t* out);

bool unpack_row(const PrimeTable<std::uint32_t>& prime, const std::uint8_t* in, std::size_t count, std::uint32_t* out);

}  // namespace pppml::kernels::avx512
