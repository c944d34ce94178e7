// The canonical embedding of CKKS and its inverse: a negacyclic complex Fourier transform, written once for every
// backend. Eight doubles side by side are one vector; what a compiler makes of it depends on the flags of the file that
// includes this one, the operations and their order do not, so all backends give the same bits.
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

typedef double Doubles __attribute__((vector_size(kRows * sizeof(double))));

struct ComplexRef {
  double* re;
  double* im;
};

inline void load(Doubles& v, const double* p) {
  std::memcpy(&v, p, sizeof v);
}
inline void store(double* p, const Doubles& v) {
  std::memcpy(p, &v, sizeof v);
}

// (a, b) <- (a + w b, a - w b)
template <class Root>
inline void butterfly(const ComplexRef& a, const ComplexRef& b, const Root& w_re, const Root& w_im) {
  Doubles ar, ai, br, bi;
  load(ar, a.re), load(ai, a.im), load(br, b.re), load(bi, b.im);
  const Doubles tr = br * w_re - bi * w_im, ti = br * w_im + bi * w_re;
  store(a.re, ar + tr), store(a.im, ai + ti), store(b.re, ar - tr), store(b.im, ai - ti);
}

// (a, b) <- (a + b, (a - b) conj(w)): twice the inverse
template <class Root>
inline void inverse_butterfly(const ComplexRef& a, const ComplexRef& b, const Root& w_re, const Root& w_im) {
  Doubles ar, ai, br, bi;
  load(ar, a.re), load(ai, a.im), load(br, b.re), load(bi, b.im);
  const Doubles dr = ar - br, di = ai - bi;
  store(a.re, ar + br), store(a.im, ai + bi);
  store(b.re, dr * w_re + di * w_im), store(b.im, di * w_re - dr * w_im);
}

// One level over rows: `groups` < 8 polynomials of 2 half coefficients each.
template <bool kInverse>
void row_level(const EmbeddingTable& table, std::size_t groups, double* re, double* im) {
  const std::size_t half = table.slots() / groups / 2;
  for (std::size_t g = 0; g < groups; ++g) {
    const double w_re = table.re[groups + g], w_im = table.im[groups + g];
    for (std::size_t j = 2 * half * g; j < 2 * half * g + half; j += kRows) {
      const ComplexRef a{re + j, im + j}, b{re + j + half, im + j + half};
      if (kInverse) {
        inverse_butterfly(a, b, w_re, w_im);
      } else {
        butterfly(a, b, w_re, w_im);
      }
    }
  }
}

// One level over columns: in each of the eight rows `groups` polynomials.
template <bool kInverse>
void column_level(const EmbeddingTable& table, std::size_t groups, double* re, double* im) {
  const std::size_t half = table.slots() / groups / 2;  // counts the eight rows
  for (std::size_t g = 0; g < groups; ++g) {
    Doubles w_re, w_im;
    load(w_re, table.re + kRows * (groups + g)), load(w_im, table.im + kRows * (groups + g));
    for (std::size_t j = 2 * half * g; j < 2 * half * g + half; j += kRows) {
      const ComplexRef a{re + j, im + j}, b{re + j + half, im + j + half};
      if (kInverse) {
        inverse_butterfly(a, b, w_re, w_im);
      } else {
        butterfly(a, b, w_re, w_im);
      }
    }
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
  double *re = coefficients, *im = coefficients + slots;
  for (std::size_t groups = 1; groups < kRows; groups *= 2) row_level<false>(table, groups, re, im);
  to_columns(width, re, values);
  to_columns(width, im, values + slots);
  for (std::size_t groups = 1; groups < width; groups *= 2) column_level<false>(table, groups, values, values + slots);
}

// KernelTable::unembed
inline void unembed(const EmbeddingTable& table, double* values, double* coefficients) {
  const std::size_t slots = table.slots(), width = slots / kRows;
  for (std::size_t groups = width / 2; groups >= 1; groups /= 2) {
    column_level<true>(table, groups, values, values + slots);
  }
  to_rows(width, values, coefficients);
  to_rows(width, values + slots, coefficients + slots);
  double *re = coefficients, *im = coefficients + slots;
  for (std::size_t groups = kRows / 2; groups >= 1; groups /= 2) row_level<true>(table, groups, re, im);
  const double scale = 1.0 / static_cast<double>(slots);  // a power of two: exact
  for (std::size_t k = 0; k < 2 * slots; ++k) coefficients[k] *= scale;
}

PPPML_ISA_END
}  // namespace pppml::kernels
