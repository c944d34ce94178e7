// Products of rows with a constant factor: a_j * s, pk * u.
#pragma once

#include <vector>

#include "kernels/avx2/transform.hpp"

namespace pppml::kernels::avx2 {

// Those of every prime of a ring.
std::vector<ColumnRoots> make_roots(const Ring32& ring, ColumnRoots::Direction direction);

class ProductMaker {
 public:
  // `factor` carries N^-1, as all multipliers do; `inverse_roots` are those of prime l and must outlive the maker.
  ProductMaker(const Ring32& ring, std::size_t l, const Multiplier<Word>& factor, const ColumnRoots& inverse_roots);

  // N coefficients of factor * a_j, which expands from `key`: the stream is multiplied and the chunk transformed while
  // it is at hand.
  void expand_and_multiply(const std::uint8_t* key, std::uint64_t block, Word* out);

  // N coefficients of factor * in, `in` being in column order.
  void multiply(const Word* in, Word* out);

 private:
  const Prime32& prime_;
  std::uint32_t selector_;
  const ColumnRoots& roots_;
  ColumnFactor factor_;
  SecretBuffer<Word> scratch_;
};

}  // namespace pppml::kernels::avx2
