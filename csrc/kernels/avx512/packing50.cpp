#include "kernels/avx512/packing50.hpp"

#include "kernels/avx512/words64.hpp"
#include "kernels/scalar/codec.hpp"

namespace pppml::kernels::avx512 {
namespace {

constexpr unsigned kFastBits = 50;
constexpr std::size_t kFastBytes = 50;  // of eight 50-bit residues
constexpr std::uint64_t kFastMask = (std::uint64_t{1} << kFastBytes) - 1;

// Residue i begins at bit 50 i = 8 (50 i / 8) + 2 (i mod 4): shifted left by its second part it takes seven whole
// bytes, of which the first is shared with the residue before it and the last with the one behind.
struct Layout {
  alignas(64) std::uint8_t even[64], odd[64], residue[64];
  std::uint64_t even_bytes, odd_bytes, residue_bytes;
};

constexpr Layout make_layout() {
  Layout layout{};
  for (unsigned i = 0; i < kLanes64; ++i) {
    const unsigned first = kFastBits * i / 8, last = (kFastBits * (i + 1) - 1) / 8;
    for (unsigned at = first; at <= last; ++at) {
      const unsigned byte = 8 * i + at - first;
      (i % 2 == 0 ? layout.even : layout.odd)[at] = static_cast<std::uint8_t>(byte);
      (i % 2 == 0 ? layout.even_bytes : layout.odd_bytes) |= std::uint64_t{1} << at;
      layout.residue[byte] = static_cast<std::uint8_t>(at);
      layout.residue_bytes |= std::uint64_t{1} << byte;
    }
  }
  return layout;
}

constexpr Layout kLayout = make_layout();

__m512i shifts() {
  return _mm512_set_epi64(6, 4, 2, 0, 6, 4, 2, 0);
}

}  // namespace

void pack_row(const PrimeTable<std::uint64_t>& prime, const std::uint64_t* in, std::size_t count, std::uint8_t* out) {
  std::size_t k = 0;
  if (prime.bits == kFastBits) {
    const __m512i even = _mm512_load_si512(kLayout.even), odd = _mm512_load_si512(kLayout.odd);
    for (; k + kLanes64 <= count; k += kLanes64, out += kFastBytes) {
      const __m512i residues = _mm512_sllv_epi64(_mm512_loadu_si512(in + k), shifts());
      const __m512i bytes = _mm512_or_si512(_mm512_maskz_permutexvar_epi8(kLayout.even_bytes, even, residues),
                                            _mm512_maskz_permutexvar_epi8(kLayout.odd_bytes, odd, residues));
      _mm512_mask_storeu_epi8(out, kFastMask, bytes);
    }
  }
  if (k < count) scalar::pack_row(prime, in + k, count - k, out);
}

bool unpack_row(const PrimeTable<std::uint64_t>& prime, const std::uint8_t* in, std::size_t count, std::uint64_t* out) {
  std::size_t k = 0;
  __mmask8 invalid = 0;
  if (prime.bits == kFastBits) {
    const __m512i where = _mm512_load_si512(kLayout.residue);
    const __m512i low = _mm512_set1_epi64((std::int64_t{1} << kFastBits) - 1);
    const __m512i q = _mm512_set1_epi64(static_cast<std::int64_t>(prime.modulus));
    for (; k + kLanes64 <= count; k += kLanes64, in += kFastBytes) {
      const __m512i bytes = _mm512_maskz_loadu_epi8(kFastMask, in);
      const __m512i items = _mm512_maskz_permutexvar_epi8(kLayout.residue_bytes, where, bytes);
      const __m512i residues = _mm512_and_si512(_mm512_srlv_epi64(items, shifts()), low);
      invalid = static_cast<__mmask8>(invalid | _mm512_cmpge_epu64_mask(residues, q));
      _mm512_storeu_si512(out + k, residues);
    }
  }
  const bool rest = k == count || scalar::unpack_row(prime, in, count - k, out + k);
  return rest && invalid == 0;
}

}  // namespace pppml::kernels::avx512
