// AES-256 in counter mode, sixty-four blocks at a time. Only for files with the flags of VAES: see vaes.hpp.
#pragma once

#include "base/buffer.hpp"
#include "kernels/avx512/lanes.hpp"

namespace pppml::kernels::avx512 {

constexpr int kAesRounds = 14;
constexpr int kAesBatchVectors = 16;  // of four blocks each
constexpr std::size_t kAesBlockWords = 4;
constexpr std::size_t kAesBatchWords = kAesBatchVectors * kLanes;

// What all streams under one key share. The first round is linear in the sixteen substituted bytes, so that among the
// 256 blocks whose counters differ in the last byte alone, its results differ by what depends on the key and that byte
// only: `first_round` holds these differences to the block whose last byte is 0.
struct Aes256Key {
  explicit Aes256Key(const std::uint8_t* key) {
    expand(key);
    const Vector zero = _mm512_setzero_si512();
    const Vector origin = _mm512_aesenc_epi128(rounds[0], zero);
    Vector counters = _mm512_set_epi32(3 << 24, 0, 0, 0, 2 << 24, 0, 0, 0, 1 << 24, 0, 0, 0, 0, 0, 0, 0);
    for (Vector& difference : first_round) {
      difference = _mm512_xor_si512(_mm512_aesenc_epi128(_mm512_xor_si512(rounds[0], counters), zero), origin);
      counters = _mm512_add_epi32(counters, _mm512_maskz_set1_epi32(0x8888, 4 << 24));
    }
  }
  ~Aes256Key() {
    wipe(rounds, sizeof rounds);
    wipe(first_round, sizeof first_round);
  }
  Aes256Key(const Aes256Key&) = delete;
  Aes256Key& operator=(const Aes256Key&) = delete;

  Vector rounds[kAesRounds + 1];  // round keys, each four times
  Vector first_round[256 / 4];

 private:
  // FIPS 197, 5.2: a round key is the one two before it, plus its own words before, plus the last word substituted.
  void expand(const std::uint8_t* key) {
    __m128i before = _mm_loadu_si128(reinterpret_cast<const __m128i*>(key));
    __m128i last = _mm_loadu_si128(reinterpret_cast<const __m128i*>(key + 16));
    rounds[0] = _mm512_broadcast_i32x4(before);
    rounds[1] = _mm512_broadcast_i32x4(last);
    for (int r = 2; r <= kAesRounds; ++r) {
      const __m128i substituted = _mm_aeskeygenassist_si128(last, 0);
      const __m128i word = r % 2 == 0
                               ? _mm_xor_si128(_mm_shuffle_epi32(substituted, 0xff), _mm_set1_epi32(1 << (r / 2 - 1)))
                               : _mm_shuffle_epi32(substituted, 0xaa);
      before = _mm_xor_si128(before, _mm_slli_si128(before, 4));
      before = _mm_xor_si128(before, _mm_slli_si128(before, 8));
      const __m128i next = _mm_xor_si128(before, word);
      before = last;
      last = next;
      rounds[r] = _mm512_broadcast_i32x4(next);
    }
  }
};

// One stream. The key must outlive it.
class Aes256 {
 public:
  Aes256(const Aes256Key& key, std::uint32_t selector, std::uint64_t block)
      : key_(key),
        counter_block_(
            _mm_set_epi32(0, static_cast<int>(block >> 32), static_cast<int>(block), static_cast<int>(selector))) {}

  // sink(i, v) for i = 0 .. 15: v holds words [4 * counter + 16 i, 4 * counter + 16 i + 16) of the stream. `counter` is
  // a multiple of 64.
  template <class Sink>
  void generate_to(std::uint32_t counter, Sink sink) const {
    constexpr int kTogether = 8;  // their states and the round keys fit in the registers
    const auto swapped = static_cast<int>(__builtin_bswap32(counter & ~std::uint32_t{0xff}));
    const Vector start = _mm512_broadcast_i32x4(_mm_insert_epi32(counter_block_, swapped, 3));
    const Vector origin = _mm512_aesenc_epi128(_mm512_xor_si512(start, key_.rounds[0]), key_.rounds[1]);
    const Vector* differences = key_.first_round + (counter & 0xff) / 4;
#pragma GCC unroll 2
    for (int first = 0; first < kAesBatchVectors; first += kTogether) {
      Vector x[kTogether];
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; ++i) x[i] = _mm512_xor_si512(origin, differences[first + i]);
#pragma GCC unroll 12
      for (int r = 2; r < kAesRounds; ++r) {
#pragma GCC unroll 8
        for (int i = 0; i < kTogether; ++i) x[i] = _mm512_aesenc_epi128(x[i], key_.rounds[r]);
      }
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; ++i) sink(first + i, _mm512_aesenclast_epi128(x[i], key_.rounds[kAesRounds]));
    }
  }

  // Words [4 * counter, 4 * counter + 256) of the stream; `counter` is a multiple of 64.
  void generate(std::uint32_t counter, std::uint32_t* out) const {
    generate_to(counter, [out](int i, Vector words) { store(out + 16 * i, words); });
  }

 private:
  const Aes256Key& key_;
  __m128i counter_block_;  // counter 0
};

}  // namespace pppml::kernels::avx512
