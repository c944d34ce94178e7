// The canonical embedding of CKKS and its inverse: a negacyclic complex Fourier transform, written once for every
// backend. How many numbers a register holds depends on the flags of the file that includes this one; the operations on
// each number and their order do not, so all backends give the same bits.
//
// A real polynomial m of degree N is u = (m_0 .. m_{M-1}) + i (m_M .. m_{N-1}), M = N/2: at zeta^e with e = 1 mod 4,
// zeta = exp(i pi / N), X^M is i, so m(zeta^e) = u(zeta^e). And X^M - i splits like the polynomials of the NTT, X^2h -
// w^2 into X^h - w and X^h + w, down to the X - zeta^e. Three levels work on u as eight rows of M/8, which then turn
// into columns, eight numbers side by side; all further levels stay within a row, so that they treat the eight alike.
#pragma once

#include <cstddef>
#include <cstring>

#include "base/isa.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels {
PPPML_ISA_BEGIN

constexpr std::size_t kRows = kEmbeddingRows;

// As many doubles as a register of the instruction set holds; a divisor of kRows.
#if defined(__AVX512F__)
constexpr std::size_t kLanes = 8;
#elif defined(__AVX__)
constexpr std::size_t kLanes = 4;
#else
constexpr std::size_t kLanes = 2;
#endif
typedef double Doubles __attribute__((vector_size(kLanes * sizeof(double))));

struct ComplexVector {
  Doubles re, im;
};

inline ComplexVector load(const double* re, const double* im) {
  ComplexVector v;
  std::memcpy(&v.re, re, sizeof v.re);
  std::memcpy(&v.im, im, sizeof v.im);
  return v;
}
inline void store(const ComplexVector& v, double* re, double* im) {
  std::memcpy(re, &v.re, sizeof v.re);
  std::memcpy(im, &v.im, sizeof v.im);
}

// (a, b) <- (a + w b, a - w b)
inline void butterfly(ComplexVector& a, ComplexVector& b, const ComplexVector& w) {
  const Doubles re = b.re * w.re - b.im * w.im, im = b.re * w.im + b.im * w.re;
  b = {a.re - re, a.im - im};
  a = {a.re + re, a.im + im};
}

// (a, b) <- (a + b, (a - b) conj(w)): twice the inverse
inline void inverse_butterfly(ComplexVector& a, ComplexVector& b, const ComplexVector& w) {
  const Doubles re = a.re - b.re, im = a.im - b.im;
  a = {a.re + b.re, a.im + b.im};
  b = {re * w.re + im * w.im, im * w.re - re * w.im};
}

// The roots of one node for kLanes numbers side by side: all alike over rows, one per row over columns.
inline ComplexVector row_root(const EmbeddingTable& table, std::size_t node) {
  return {Doubles{} + table.re[node], Doubles{} + table.im[node]};
}
inline ComplexVector column_root(const EmbeddingTable& table, std::size_t node, std::size_t row) {
  return load(table.re + kRows * node + row, table.im + kRows * node + row);
}

// Two levels in one pass: nodes `groups` + g and their children. `root(node)` gives roots for the kLanes numbers at
// every `stride`-th place from `first` on; half the distance of the upper level's butterflies is a multiple of
// `stride`.
template <bool kInverse, class Root>
void two_levels(std::size_t slots, std::size_t groups, std::size_t first, std::size_t stride, Root root, double* re,
                double* im) {
  const std::size_t quarter = slots / groups / 4;
  for (std::size_t g = 0; g < groups; ++g) {
    const ComplexVector top = root(groups + g), left = root(2 * (groups + g)), right = root(2 * (groups + g) + 1);
    for (std::size_t j = 4 * quarter * g + first; j < (4 * g + 1) * quarter; j += stride) {
      ComplexVector x[4];
      for (std::size_t i = 0; i < 4; ++i) x[i] = load(re + j + i * quarter, im + j + i * quarter);
      if (kInverse) {
        inverse_butterfly(x[0], x[1], left), inverse_butterfly(x[2], x[3], right);
        inverse_butterfly(x[0], x[2], top), inverse_butterfly(x[1], x[3], top);
      } else {
        butterfly(x[0], x[2], top), butterfly(x[1], x[3], top);
        butterfly(x[0], x[1], left), butterfly(x[2], x[3], right);
      }
      for (std::size_t i = 0; i < 4; ++i) store(x[i], re + j + i * quarter, im + j + i * quarter);
    }
  }
}

template <bool kInverse, class Root>
void one_level(std::size_t slots, std::size_t groups, std::size_t first, std::size_t stride, Root root, double* re,
               double* im) {
  const std::size_t half = slots / groups / 2;
  for (std::size_t g = 0; g < groups; ++g) {
    const ComplexVector w = root(groups + g);
    for (std::size_t j = 2 * half * g + first; j < (2 * g + 1) * half; j += stride) {
      ComplexVector a = load(re + j, im + j), b = load(re + j + half, im + j + half);
      if (kInverse) {
        inverse_butterfly(a, b, w);
      } else {
        butterfly(a, b, w);
      }
      store(a, re + j, im + j);
      store(b, re + j + half, im + j + half);
    }
  }
}

// Levels `from`, 2 from, .. below `to`, two at a time where there are two; backwards for the inverse.
template <bool kInverse, class Root>
void levels(std::size_t slots, std::size_t from, std::size_t to, std::size_t first, std::size_t stride, Root root,
            double* re, double* im) {
  if (from >= to) return;
  const bool single = 2 * from >= to;
  const auto rest = [&](std::size_t next) { levels<kInverse>(slots, next, to, first, stride, root, re, im); };
  if (kInverse) rest(single ? to : 4 * from);
  if (single) {
    one_level<kInverse>(slots, from, first, stride, root, re, im);
  } else {
    two_levels<kInverse>(slots, from, first, stride, root, re, im);
  }
  if (!kInverse) rest(single ? to : 4 * from);
}

// The first three levels, over rows of consecutive numbers.
template <bool kInverse>
void row_levels(const EmbeddingTable& table, double* re, double* im) {
  levels<kInverse>(table.slots(), 1, kRows, 0, kLanes, [&](std::size_t node) { return row_root(table, node); }, re, im);
}

// The levels after them, within each of eight rows that stand side by side: kLanes of the rows at a time.
template <bool kInverse>
void column_levels(const EmbeddingTable& table, double* re, double* im) {
  for (std::size_t row = 0; row < kRows; row += kLanes) {
    const auto root = [&](std::size_t node) { return column_root(table, node, row); };
    levels<kInverse>(table.slots(), 1, table.slots() / kRows, row, kRows, root, re, im);
  }
}

// Eight rows of `width` <-> `width` columns of eight.
inline void to_columns(std::size_t width, const double* rows, double* columns) {
  for (std::size_t c = 0; c < width; c += kRows) {
    for (std::size_t k = c; k < c + kRows; ++k) {
      for (std::size_t r = 0; r < kRows; ++r) columns[k * kRows + r] = rows[r * width + k];
    }
  }
}
inline void to_rows(std::size_t width, const double* columns, double* rows) {
  for (std::size_t c = 0; c < width; c += kRows) {
    for (std::size_t r = 0; r < kRows; ++r) {
      for (std::size_t k = c; k < c + kRows; ++k) rows[r * width + k] = columns[k * kRows + r];
    }
  }
}

// KernelTable::embed
inline void embed(const EmbeddingTable& table, double* coefficients, double* values) {
  const std::size_t slots = table.slots(), width = slots / kRows;
  row_levels<false>(table, coefficients, coefficients + slots);
  to_columns(width, coefficients, values);
  to_columns(width, coefficients + slots, values + slots);
  column_levels<false>(table, values, values + slots);
}

// KernelTable::unembed
inline void unembed(const EmbeddingTable& table, double* values, double* coefficients) {
  const std::size_t slots = table.slots(), width = slots / kRows;
  column_levels<true>(table, values, values + slots);
  to_rows(width, values, coefficients);
  to_rows(width, values + slots, coefficients + slots);
  row_levels<true>(table, coefficients, coefficients + slots);
  const double scale = 1.0 / static_cast<double>(slots);  // a power of two: exact
  for (std::size_t k = 0; k < 2 * slots; ++k) coefficients[k] *= scale;
}

PPPML_ISA_END
}  // namespace pppml::kernels
