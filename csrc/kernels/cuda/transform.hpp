// Negacyclic transforms of one row by one block of threads, radix 8: three levels in registers between two barriers.
//
// In pass p a thread holds eight residues at distance 2^(3 p), N / 8 in the last pass, which then repeats no level that
// the pass before has done. So in the first pass a thread's residues stand side by side, as its factors do, and in the
// last one they are thread + i N / 8: what a warp reads or writes in one step stands side by side.
#pragma once

#include "kernels/cuda/arithmetic.hpp"

namespace pppml::kernels::cuda {

constexpr unsigned kLastPass = 3;

// What one thread holds of a row.
template <class Shape>
struct Residues {
  typename Shape::Word x[Shape::kPerThread];
};

// Where residue k of a row stands in shared memory: in another bank than all others that its warp, or half of it for
// words of 64 bits, touches at once, in every pass and when streams are written. Bits of k beyond the bank number are
// added, without carry, to those of the bank.
template <class Word>
PPPML_HD unsigned bank_order(unsigned k) {
  if (sizeof(Word) == 4) return k ^ (k >> 5 & 31) ^ (k >> 6 & 3) << 3;
  return k ^ (k >> 4 & 15) ^ (k >> 6 & 1) << 3;
}

template <class Shape, unsigned kPass>
struct Pass {
  using Word = typename Shape::Word;
  static constexpr bool kLast = kPass == kLastPass;
  static constexpr unsigned kLogStride = kLast ? Shape::kLogDegree - 3 : 3 * kPass;
  static constexpr unsigned kFirstLevel = kLast ? 3 * kLastPass - kLogStride : 0;
  static_assert(3 * kLastPass >= Shape::kLogDegree - 3 && 3 * kLastPass < Shape::kLogDegree);

  // The row's residue that is number i of a thread.
  PPPML_HD static unsigned element(unsigned thread, unsigned i) {
    return thread >> kLogStride << (kLogStride + 3) | i << kLogStride | (thread & ((1u << kLogStride) - 1));
  }

  // Index of the root of the butterfly at element i, whose partner is i + 2^level.
  PPPML_HD static unsigned root(unsigned thread, unsigned i, unsigned level) {
    const unsigned log_pair = kLogStride + level + 1;
    return (Shape::kDegree >> log_pair) + (element(thread, 0) >> log_pair) + (i >> (level + 1));
  }

  PPPML_HD static void load(unsigned thread, const Word* row, Residues<Shape>& r) {
    PPPML_UNROLL
    for (unsigned i = 0; i < Shape::kPerThread; ++i) r.x[i] = row[bank_order<Word>(element(thread, i))];
  }
  PPPML_HD static void store(unsigned thread, const Residues<Shape>& r, Word* row) {
    PPPML_UNROLL
    for (unsigned i = 0; i < Shape::kPerThread; ++i) row[bank_order<Word>(element(thread, i))] = r.x[i];
  }

  // Residues in [0, q) before and after.
  PPPML_HD static void invert(unsigned thread, const DevicePrime<Word>& prime, Residues<Shape>& r) {
    const Word q = prime.modulus;
    PPPML_UNROLL
    for (unsigned level = kFirstLevel; level < 3; ++level) {
      PPPML_UNROLL
      for (unsigned i = 0; i < Shape::kPerThread; ++i) {
        if ((i >> level & 1) != 0) continue;
        Word &left = r.x[i], &right = r.x[i | 1u << level];
        const Word u = left, v = right;
        left = add(u, v, q);
        right = multiply<Word>(u + q - v, prime.inverse_roots[root(thread, i, level)], q);
      }
    }
  }

  PPPML_HD static void forward(unsigned thread, const DevicePrime<Word>& prime, Residues<Shape>& r) {
    const Word q = prime.modulus;
    PPPML_UNROLL
    for (unsigned level = 3; level-- > kFirstLevel;) {
      PPPML_UNROLL
      for (unsigned i = 0; i < Shape::kPerThread; ++i) {
        if ((i >> level & 1) != 0) continue;
        Word &left = r.x[i], &right = r.x[i | 1u << level];
        const Word u = left, v = multiply(right, prime.roots[root(thread, i, level)], q);
        left = add(u, v, q);
        right = reduce<Word>(u + q - v, q);
      }
    }
  }
};

// Rows in shared memory <-> what threads hold, as the last pass has it: residue i of a thread is thread + i N / 8.
template <class Shape, class Group>
class RowTransform {
  using Word = typename Shape::Word;
  using Held = typename Group::template Local<Residues<Shape>>;

 public:
  PPPML_HD RowTransform(const Group& group, const DevicePrime<Word>& prime, Word* row)
      : group_(group), prime_(prime), row_(row) {}

  // held <- N^-1 times the inverse transform of row * factor, the factor carrying the N^-1; overwrites the row.
  PPPML_HD void multiply_and_invert(const Factor<Word>* factor, Held& held) const {
    const DevicePrime<Word>& prime = prime_;
    Word* const row = row_;
    group_.phase([&](unsigned thread) {
      Residues<Shape> r;
      Pass<Shape, 0>::load(thread, row, r);
      finish_product(thread, factor, r);
    });
    rest_of_inverse(held);
    static_cast<void>(prime);
  }

  // The same of the transform of what is held: held <- the negacyclic product of held and the factor's polynomial.
  PPPML_HD void convolve(const Factor<Word>* factor, Held& held) const {
    const DevicePrime<Word>& prime = prime_;
    Word* const row = row_;
    group_.phase([&](unsigned thread) {
      Residues<Shape> r = held[thread];
      Pass<Shape, kLastPass>::forward(thread, prime, r);
      Pass<Shape, kLastPass>::store(thread, r, row);
    });
    forward_step<2>();
    forward_step<1>();
    group_.phase([&](unsigned thread) {
      Residues<Shape> r;
      Pass<Shape, 0>::load(thread, row, r);
      Pass<Shape, 0>::forward(thread, prime, r);
      finish_product(thread, factor, r);
    });
    rest_of_inverse(held);
  }

 private:
  PPPML_HD void finish_product(unsigned thread, const Factor<Word>* factor, Residues<Shape>& r) const {
    PPPML_UNROLL
    for (unsigned i = 0; i < Shape::kPerThread; ++i) {
      r.x[i] = multiply(r.x[i], factor[Pass<Shape, 0>::element(thread, i)], prime_.modulus);
    }
    Pass<Shape, 0>::invert(thread, prime_, r);
    Pass<Shape, 0>::store(thread, r, row_);
  }

  PPPML_HD void rest_of_inverse(Held& held) const {
    const DevicePrime<Word>& prime = prime_;
    Word* const row = row_;
    inverse_step<1>();
    inverse_step<2>();
    group_.phase([&](unsigned thread) {
      Residues<Shape> r;
      Pass<Shape, kLastPass>::load(thread, row, r);
      Pass<Shape, kLastPass>::invert(thread, prime, r);
      held[thread] = r;
    });
  }

  template <unsigned kPass>
  PPPML_HD void inverse_step() const {
    const DevicePrime<Word>& prime = prime_;
    Word* const row = row_;
    group_.phase([&](unsigned thread) {
      Residues<Shape> r;
      Pass<Shape, kPass>::load(thread, row, r);
      Pass<Shape, kPass>::invert(thread, prime, r);
      Pass<Shape, kPass>::store(thread, r, row);
    });
  }
  template <unsigned kPass>
  PPPML_HD void forward_step() const {
    const DevicePrime<Word>& prime = prime_;
    Word* const row = row_;
    group_.phase([&](unsigned thread) {
      Residues<Shape> r;
      Pass<Shape, kPass>::load(thread, row, r);
      Pass<Shape, kPass>::forward(thread, prime, r);
      Pass<Shape, kPass>::store(thread, r, row);
    });
  }

  const Group& group_;
  const DevicePrime<Word>& prime_;
  Word* row_;
};

}  // namespace pppml::kernels::cuda
