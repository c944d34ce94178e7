// Arithmetic modulo one prime in a thread: Shoup products, in 32 or 64 bits.
//
// The functions of base/modular.hpp, with the reduction written as a minimum, for which GPUs have an instruction. No
// lazy ranges: four times a 31-bit prime does not fit a word.
#pragma once

#include "base/modular.hpp"
#include "kernels/cuda/requests.hpp"

namespace pppml::kernels::cuda {

// a in [0, 2q) -> [0, q): a - q wraps around to something larger where a < q
template <class Word>
PPPML_HD Word reduce(Word a, Word q) {
  const Word less = a - q;
  return less < a ? less : a;
}

// a, b in [0, q)
template <class Word>
PPPML_HD Word add(Word a, Word b, Word q) {
  return reduce<Word>(a + b, q);
}

// any a, w in [0, q) -> a w mod q in [0, q)
template <class Word>
PPPML_HD Word multiply(Word a, Factor<Word> w, Word q) {
  const Word quotient = multiply_high<Word>(a, w.companion);
  return reduce<Word>(static_cast<Word>(a * w.value - quotient * q), q);
}

// |small| < q -> its residue
template <class Word, class Int>
PPPML_HD Word small_residue(Int small, Word q) {
  return static_cast<Word>(small) + (small < 0 ? q : Word{0});
}

}  // namespace pppml::kernels::cuda
