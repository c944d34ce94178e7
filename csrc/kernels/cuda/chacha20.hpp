// ChaCha20 (RFC 8439), one block of sixteen words per call: a positional stream as contract.hpp names it.
#pragma once

#include "kernels/cuda/requests.hpp"

namespace pppml::kernels::cuda {

constexpr unsigned kStreamWords = 16;

struct StreamBlock {
  std::uint32_t words[kStreamWords];

  // Word `index`, by comparing: a run-time index would move the words to memory.
  PPPML_HD std::uint32_t at(unsigned index) const {
    std::uint32_t found = 0;
    PPPML_UNROLL
    for (unsigned i = 0; i < kStreamWords; ++i) found |= i == index ? words[i] : 0;
    return found;
  }
};

PPPML_HD std::uint32_t rotate_left(std::uint32_t x, unsigned bits) {
  return (x << bits) | (x >> (32 - bits));
}

PPPML_HD void quarter_round(std::uint32_t& a, std::uint32_t& b, std::uint32_t& c, std::uint32_t& d) {
  a += b;
  d = rotate_left(d ^ a, 16);
  c += d;
  b = rotate_left(b ^ c, 12);
  a += b;
  d = rotate_left(d ^ a, 8);
  c += d;
  b = rotate_left(b ^ c, 7);
}

// Block `counter` of the stream (key, selector, block).
PPPML_HD StreamBlock stream_block(const DeviceKey& key, std::uint32_t selector, std::uint64_t block,
                                  std::uint32_t counter) {
  const auto low = static_cast<std::uint32_t>(block), high = static_cast<std::uint32_t>(block >> 32);
  StreamBlock x = {{0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, key.words[0], key.words[1], key.words[2],
                    key.words[3], key.words[4], key.words[5], key.words[6], key.words[7], counter, selector, low,
                    high}};
  std::uint32_t* w = x.words;
  PPPML_NO_UNROLL
  for (int round = 0; round < 10; ++round) {
    quarter_round(w[0], w[4], w[8], w[12]);
    quarter_round(w[1], w[5], w[9], w[13]);
    quarter_round(w[2], w[6], w[10], w[14]);
    quarter_round(w[3], w[7], w[11], w[15]);
    quarter_round(w[0], w[5], w[10], w[15]);
    quarter_round(w[1], w[6], w[11], w[12]);
    quarter_round(w[2], w[7], w[8], w[13]);
    quarter_round(w[3], w[4], w[9], w[14]);
  }
  w[0] += 0x61707865;
  w[1] += 0x3320646e;
  w[2] += 0x79622d32;
  w[3] += 0x6b206574;
  PPPML_UNROLL
  for (unsigned i = 0; i < 8; ++i) w[4 + i] += key.words[i];
  w[12] += counter;
  w[13] += selector;
  w[14] += low;
  w[15] += high;
  return x;
}

}  // namespace pppml::kernels::cuda
