// INTT(a_j * s) for expanded a_j: the stream is multiplied and transformed before it is ever stored.
#pragma once

#include <vector>

#include "base/buffer.hpp"
#include "kernels/avx512/chacha20.hpp"
#include "kernels/avx512/ntt32.hpp"

namespace pppml::kernels::avx512 {

// Sixteen ChaCha20 blocks leave their generator as a 16 x 16 matrix, lane l of vector w holding residue 16 l + w of the
// 256 that they make. In that arrangement the transform's levels of distance 1 to 8 pair whole vectors; after one
// transposition those of distance 16 to 128 do. So eight of the log2 N levels run in registers.
class ProductMaker {
 public:
  // Needs N >= 256. `factor` holds row l of a Multiplier; everything pointed to must outlive the maker.
  ProductMaker(const RingTable<std::uint32_t>& ring, std::size_t l, const Multiplier<std::uint32_t>& factor,
               const std::uint8_t* public_key);

  // N residues, below q, in coefficient order.
  void write(std::uint64_t block, std::uint32_t* row) const;

 private:
  struct Twiddle {
    alignas(64) std::uint32_t root[kLanes];
    alignas(64) std::uint32_t companion[kLanes];
  };
  static constexpr std::size_t kTwiddles = 15;  // 8 + 4 + 2 + 1 vectors for distances 1, 2, 4, 8

  static void transpose_chunks(const std::uint32_t* in, SecretBuffer<std::uint32_t>& out);
  void fill_twiddles();
  bool write_chunk(const ChaCha20& cipher, std::size_t chunk, std::uint32_t* out) const;

  const Prime32& prime_;
  unsigned log_degree_;
  std::uint32_t selector_;
  const std::uint8_t* public_key_;
  Multiplier<std::uint32_t> factor_;
  SecretBuffer<std::uint32_t> values_, companions_;  // of the factor, each chunk of 256 transposed
  Buffer<Twiddle> twiddles_;
};

}  // namespace pppml::kernels::avx512
