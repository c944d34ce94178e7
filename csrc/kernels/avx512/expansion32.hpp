// The public polynomials a_j, straight from ChaCha20 into the registers.
#pragma once

#include "kernels/avx512/chacha20.hpp"
#include "kernels/avx512/transform32.hpp"

namespace pppml::kernels::avx512 {

// Chunks of one expanded row as columns (transform32.hpp): the residues that KernelTable::uniform returns.
class ExpandedColumns {
 public:
  ExpandedColumns(const Prime32& prime, std::size_t degree, const std::uint8_t* key, std::uint32_t selector,
                  std::uint64_t block)
      : prime_(prime), degree_(degree), key_(key), selector_(selector), block_(block), cipher_(key, selector, block) {}

  void operator()(std::size_t chunk, Vector* x) const {
    const Vector q = broadcast(prime_.modulus), mask = broadcast((std::uint32_t{1} << prime_.bits) - 1);
    cipher_.generate_columns(static_cast<std::uint32_t>(chunk * kLanes), x);
    Vector largest = _mm512_setzero_si512();
#pragma GCC unroll 16
    for (std::size_t w = 0; w < kLanes; ++w) {
      x[w] = _mm512_and_si512(x[w], mask);
      largest = _mm512_max_epu32(largest, x[w]);
    }
    if (__builtin_expect(_mm512_cmpge_epu32_mask(largest, q) != 0, 0)) redraw(chunk, x);
  }

 private:
  // Puts the next candidates below q where a chunk holds rejected ones: one row of 2048 in eleven has one at p31. What
  // is expanded is public.
  void redraw(std::size_t chunk, Vector* x) const;

  const Prime32& prime_;
  std::size_t degree_;
  const std::uint8_t* key_;
  std::uint32_t selector_;
  std::uint64_t block_;
  ChaCha20 cipher_;
};

void uniform(const Prime32& prime, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
             std::uint64_t block, std::uint32_t* out);

}  // namespace pppml::kernels::avx512
