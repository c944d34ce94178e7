// ChaCha20 (RFC 8439), eight blocks side by side: lane i of every vector belongs to counter + i.
#pragma once

#include <cstring>

#include "base/buffer.hpp"
#include "kernels/avx2/lanes.hpp"

namespace pppml::kernels::avx2 {

constexpr std::size_t kBatchWords = 128;  // words of eight ChaCha20 blocks
constexpr std::size_t kColumns = 16;      // words of one block

// A batch in column order: word 8 w + l of it is word 16 l + w of the stream, which is word w of block l.
inline void columns_to_rows(const std::uint32_t* in, std::uint32_t* out) {
  for (std::size_t half = 0; half < 2; ++half) {
    Vector x[kLanes];
    for (std::size_t w = 0; w < kLanes; ++w) x[w] = load(in + kLanes * (kLanes * half + w));
    transpose(x);
    for (std::size_t l = 0; l < kLanes; ++l) store(out + kColumns * l + kLanes * half, x[l]);
  }
}

inline void rows_to_columns(const std::uint32_t* in, std::uint32_t* out) {
  for (std::size_t half = 0; half < 2; ++half) {
    Vector x[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) x[l] = load(in + kColumns * l + kLanes * half);
    transpose(x);
    for (std::size_t w = 0; w < kLanes; ++w) store(out + kLanes * (kLanes * half + w), x[w]);
  }
}

class ChaCha20 {
 public:
  ChaCha20(const std::uint8_t* key, std::uint32_t selector, std::uint64_t block) {
    constexpr std::uint32_t kConstants[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    std::uint32_t words[8];
    std::memcpy(words, key, sizeof words);
    for (int i = 0; i < 4; ++i) state_[i] = broadcast(kConstants[i]);
    for (int i = 0; i < 8; ++i) state_[4 + i] = broadcast(words[i]);
    wipe(words, sizeof words);
    state_[12] = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    state_[13] = broadcast(selector);
    state_[14] = broadcast(static_cast<std::uint32_t>(block));
    state_[15] = broadcast(static_cast<std::uint32_t>(block >> 32));
  }

  ~ChaCha20() { wipe(state_, sizeof state_); }
  ChaCha20(const ChaCha20&) = delete;
  ChaCha20& operator=(const ChaCha20&) = delete;

  // The eight blocks from `counter` on, in column order.
  void generate_columns(std::uint32_t counter, std::uint32_t* out) const {
    const Vector counters = _mm256_add_epi32(state_[12], broadcast(counter));
    Vector x[kColumns];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) x[i] = i == 12 ? counters : state_[i];
    for (int round = 0; round < 10; ++round) {
      two_quarter_rounds<0, 0, 0, 0>(x);
      two_quarter_rounds<2, 0, 0, 0>(x);
      two_quarter_rounds<0, 1, 2, 3>(x);
      two_quarter_rounds<2, 1, 2, 3>(x);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) store(out + kLanes * i, _mm256_add_epi32(x[i], i == 12 ? counters : state_[i]));
  }

 private:
  template <int kBits>
  static Vector rotate_left(Vector x) {
    const Vector by16 = _mm256_set_epi8(13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2, 13, 12, 15, 14, 9, 8, 11,
                                        10, 5, 4, 7, 6, 1, 0, 3, 2);
    const Vector by8 = _mm256_set_epi8(14, 13, 12, 15, 10, 9, 8, 11, 6, 5, 4, 7, 2, 1, 0, 3, 14, 13, 12, 15, 10, 9, 8,
                                       11, 6, 5, 4, 7, 2, 1, 0, 3);
    if (kBits == 16) return _mm256_shuffle_epi8(x, by16);
    if (kBits == 8) return _mm256_shuffle_epi8(x, by8);
    return _mm256_or_si256(_mm256_slli_epi32(x, kBits), _mm256_srli_epi32(x, 32 - kBits));
  }

  // Quarter rounds on columns kFirst and kFirst + 1 of the state, its rows rotated by 0, kB, kC and kD. With two at a
  // time what they touch stays in the sixteen registers.
  template <int kFirst, int kB, int kC, int kD>
  static void two_quarter_rounds(Vector* x) {
    const auto step = [](Vector* a, Vector* b, Vector* d, auto rotate) {
      *a = _mm256_add_epi32(*a, *b);
      *d = rotate(_mm256_xor_si256(*d, *a));
    };
    Vector* a[2] = {x + kFirst, x + kFirst + 1};
    Vector* b[2] = {x + 4 + (kB + kFirst) % 4, x + 4 + (kB + kFirst + 1) % 4};
    Vector* c[2] = {x + 8 + (kC + kFirst) % 4, x + 8 + (kC + kFirst + 1) % 4};
    Vector* d[2] = {x + 12 + (kD + kFirst) % 4, x + 12 + (kD + kFirst + 1) % 4};
    for (int i = 0; i < 2; ++i) step(a[i], b[i], d[i], rotate_left<16>);
    for (int i = 0; i < 2; ++i) step(c[i], d[i], b[i], rotate_left<12>);
    for (int i = 0; i < 2; ++i) step(a[i], b[i], d[i], rotate_left<8>);
    for (int i = 0; i < 2; ++i) step(c[i], d[i], b[i], rotate_left<7>);
  }

  Vector state_[kColumns];
};

}  // namespace pppml::kernels::avx2
