// Uniform rows modulo primes of 32 to 50 bits, and INTT(a_j * s) for expanded a_j: the stream is multiplied and
// transformed before it is ever stored.
#pragma once

#include <memory>

#include "kernels/avx512/ifma/ntt50.hpp"

namespace pppml::kernels::avx512::ifma {

// What KernelTable::uniform returns; needs N >= kChunk.
void uniform(const Prime64& prime, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
             std::uint64_t block, std::uint64_t* out);

// Sixteen ChaCha20 blocks leave their generator as a 16 x 16 matrix of 32-bit words, lane i of vector w holding word w
// of block i. Joining vectors 2 j and 2 j + 1 gives candidates 32 l + 16 h + 8 e + j of 128, in vector 8 h + j and lane
// 2 l + e. In that arrangement the transform's levels of distance 1, 2 and 4 pair whole vectors; after one
// transposition those of distance 8 to 64 do. So seven of the log2 N levels run in registers.
class ProductMaker {
 public:
  // Needs N >= 256. `factor` holds one row; everything pointed to must outlive the maker.
  ProductMaker(const Prime64& prime, unsigned log_degree, std::uint32_t selector,
               const Multiplier<std::uint64_t>& factor, const std::uint8_t* public_key);
  ~ProductMaker();

  // N residues in [0, 2 q), in coefficient order.
  void write(std::uint64_t block, std::uint64_t* row) const;

 private:
  struct State;  // differs with the instruction set
  std::unique_ptr<State> state_;
};

}  // namespace pppml::kernels::avx512::ifma
