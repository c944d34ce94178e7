// ChaCha20 (RFC 8439), sixteen blocks side by side: lane i of every vector belongs to counter + i.
#pragma once

#include <cstring>

#include "base/buffer.hpp"
#include "kernels/avx512/butterflies.hpp"
#include "kernels/avx512/lanes.hpp"

namespace pppml::kernels::avx512 {
PPPML_ISA_BEGIN

constexpr std::size_t kBatchWords = 256;  // words of sixteen ChaCha20 blocks

class ChaCha20 {
 public:
  ChaCha20(const std::uint8_t* key, std::uint32_t selector, std::uint64_t block) {
    constexpr std::uint32_t kConstants[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    std::uint32_t words[8];
    std::memcpy(words, key, sizeof words);
    for (int i = 0; i < 4; ++i) state_[i] = broadcast(kConstants[i]);
    for (int i = 0; i < 8; ++i) state_[4 + i] = broadcast(words[i]);
    wipe(words, sizeof words);
    state_[12] = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    state_[13] = broadcast(selector);
    state_[14] = broadcast(static_cast<std::uint32_t>(block));
    state_[15] = broadcast(static_cast<std::uint32_t>(block >> 32));
  }

  ~ChaCha20() { wipe(state_, sizeof state_); }
  ChaCha20(const ChaCha20&) = delete;
  ChaCha20& operator=(const ChaCha20&) = delete;

  // The sixteen blocks from `counter` on, as columns: lane i of x[w] is word w of block counter + i.
  void generate_columns(std::uint32_t counter, Vector* x) const {
    const Vector counters = _mm512_add_epi32(state_[12], broadcast(counter));
    for (int i = 0; i < 16; ++i) x[i] = i == 12 ? counters : state_[i];
    // Unrolled, or the compiler copies the whole state from register to register in every round.
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      quarter_rounds(x, 0, 0, 0);
      quarter_rounds(x, 1, 2, 3);
    }
    for (int i = 0; i < 16; ++i) x[i] = _mm512_add_epi32(x[i], i == 12 ? counters : state_[i]);
  }

  // Words [16 * counter, 16 * counter + 256) of the stream, in order.
  void generate(std::uint32_t counter, std::uint32_t* out) const {
    Vector x[16];
    generate_columns(counter, x);
    transpose(x);
    for (int i = 0; i < 16; ++i) store(out + 16 * i, x[i]);
  }

 private:
  // Four independent quarter rounds on column i of the state, its rows rotated by 0, b, c and d.
  static void quarter_rounds(Vector* x, int b, int c, int d) {
    for (int step = 0; step < 4; ++step) {
      for (int i = 0; i < 4; ++i) {
        Vector& va = x[i];
        Vector& vb = x[4 + (b + i) % 4];
        Vector& vc = x[8 + (c + i) % 4];
        Vector& vd = x[12 + (d + i) % 4];
        switch (step) {
          case 0: va = _mm512_add_epi32(va, vb), vd = _mm512_rol_epi32(_mm512_xor_si512(vd, va), 16); break;
          case 1: vc = _mm512_add_epi32(vc, vd), vb = _mm512_rol_epi32(_mm512_xor_si512(vb, vc), 12); break;
          case 2: va = _mm512_add_epi32(va, vb), vd = _mm512_rol_epi32(_mm512_xor_si512(vd, va), 8); break;
          default: vc = _mm512_add_epi32(vc, vd), vb = _mm512_rol_epi32(_mm512_xor_si512(vb, vc), 7); break;
        }
      }
    }
  }

  Vector state_[16];
};

PPPML_ISA_END
}  // namespace pppml::kernels::avx512
