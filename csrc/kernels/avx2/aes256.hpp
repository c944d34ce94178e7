// AES-256 in counter mode with the processor's own rounds (FIPS 197, SP 800-38A).
#pragma once

#include "base/buffer.hpp"
#include "kernels/avx2/lanes.hpp"

namespace pppml::kernels::avx2 {

class Aes256 {
 public:
  static constexpr std::size_t kBatchWords = 32;  // words of eight blocks

  explicit Aes256(const std::uint8_t* key) {
    keys_[0] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(key));
    keys_[1] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(key + 16));
    expand<2, 0x01>();
    expand<4, 0x02>();
    expand<6, 0x04>();
    expand<8, 0x08>();
    expand<10, 0x10>();
    expand<12, 0x20>();
    expand<14, 0x40>();
  }

  ~Aes256() { wipe(keys_, sizeof keys_); }
  Aes256(const Aes256&) = delete;
  Aes256& operator=(const Aes256&) = delete;

  // Words [4 * counter, 4 * counter + 32) of the stream (selector, block).
  void generate(std::uint32_t selector, std::uint64_t block, std::uint32_t counter, std::uint32_t* out) const {
    const __m128i name =
        _mm_set_epi32(0, static_cast<int>(block >> 32), static_cast<int>(block), static_cast<int>(selector));
    __m128i x[kBlocks];
#pragma GCC unroll 8
    for (unsigned i = 0; i < kBlocks; ++i) {
      const auto big_endian = static_cast<int>(__builtin_bswap32(counter + i));
      x[i] = _mm_xor_si128(_mm_insert_epi32(name, big_endian, 3), keys_[0]);
    }
#pragma GCC unroll 13
    for (int round = 1; round < kRounds; ++round) {
#pragma GCC unroll 8
      for (__m128i& state : x) state = _mm_aesenc_si128(state, keys_[round]);
    }
#pragma GCC unroll 8
    for (unsigned i = 0; i < kBlocks; ++i) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out) + i, _mm_aesenclast_si128(x[i], keys_[kRounds]));
    }
  }

 private:
  static constexpr int kRounds = 14;
  static constexpr unsigned kBlocks = 8;

  // x0, x0 ^ x1, x0 ^ x1 ^ x2, ... of the four words of x, each xored with `word`.
  static __m128i accumulate(__m128i x, __m128i word) {
    x = _mm_xor_si128(x, _mm_slli_si128(x, 4));
    x = _mm_xor_si128(x, _mm_slli_si128(x, 8));
    return _mm_xor_si128(x, word);
  }

  // Round keys kAt and, but at the end, kAt + 1 (FIPS 197, 5.2).
  template <int kAt, int kConstant>
  void expand() {
    const __m128i rotated = _mm_aeskeygenassist_si128(keys_[kAt - 1], kConstant);
    keys_[kAt] = accumulate(keys_[kAt - 2], _mm_shuffle_epi32(rotated, 0xff));
    if (kAt == kRounds) return;
    const __m128i substituted = _mm_aeskeygenassist_si128(keys_[kAt], 0);
    keys_[kAt + 1] = accumulate(keys_[kAt - 1], _mm_shuffle_epi32(substituted, 0xaa));
  }

  __m128i keys_[kRounds + 2];
};

}  // namespace pppml::kernels::avx2
