#include "kernels/avx2/transform.hpp"

#include <algorithm>

namespace pppml::kernels::avx2 {
namespace {

// Two levels at once: x[i], x[i + 1] pair in the inner one, x[i], x[i + 2] in the outer.
inline void inverse_pair(Vector* x, const Factor& inner0, const Factor& inner1, const Factor& outer, Vector q) {
  inverse_butterfly(x[0], x[1], inner0, q);
  inverse_butterfly(x[2], x[3], inner1, q);
  inverse_butterfly(x[0], x[2], outer, q);
  inverse_butterfly(x[1], x[3], outer, q);
}

inline void forward_pair(Vector* x, const Factor& inner0, const Factor& inner1, const Factor& outer, Vector q) {
  forward_butterfly(x[0], x[2], outer, q);
  forward_butterfly(x[1], x[3], outer, q);
  forward_butterfly(x[0], x[1], inner0, q);
  forward_butterfly(x[2], x[3], inner1, q);
}

// Levels `level` and `level + 1` of a chunk in column order.
template <unsigned kLevel, class Body>
inline void over_columns(const ColumnRoots& roots, std::size_t chunk, Body body) {
  constexpr std::size_t kStep = std::size_t{1} << kLevel;
  for (std::size_t g = 0; g < 4; ++g) {
    const std::size_t w = kLevel == 0 ? 4 * g : g;
    const Factor inner0 = roots.between(chunk, kLevel, w), inner1 = roots.between(chunk, kLevel, w + 2 * kStep);
    body(w, kStep, inner0, inner1, roots.between(chunk, kLevel + 1, w));
  }
}

template <void (*kPair)(Vector*, const Factor&, const Factor&, const Factor&, Vector)>
inline void double_level(const ColumnRoots& roots, std::size_t half, Word* row) {
  const Vector q = roots.modulus();
  for (std::size_t start = 0; start < roots.degree(); start += 4 * half) {
    const std::size_t outer = (roots.degree() + start) / (4 * half);
    const Factor w0 = roots.at(2 * outer), w1 = roots.at(2 * outer + 1), w2 = roots.at(outer);
    for (std::size_t k = start; k < start + half; k += kLanes) {
      Vector x[4];
      for (std::size_t i = 0; i < 4; ++i) x[i] = load(row + k + i * half);
      kPair(x, w0, w1, w2, q);
      for (std::size_t i = 0; i < 4; ++i) store(row + k + i * half, x[i]);
    }
  }
}

template <void (*kButterfly)(Vector&, Vector&, const Factor&, Vector)>
inline void top_level(const ColumnRoots& roots, Word* row) {
  const Vector q = roots.modulus();
  const std::size_t half = roots.degree() / 2;
  const Factor w = roots.at(1);
  for (std::size_t k = 0; k < half; k += kLanes) {
    Vector left = load(row + k), right = load(row + k + half);
    kButterfly(left, right, w, q);
    store(row + k, left);
    store(row + k + half, right);
  }
}

// The levels of distance 16, 32 and 64, every second vector of a chunk at a time; x[l] holds eight of its residues from
// 16 l on.
inline void inverse_rows(const ColumnRoots& roots, std::size_t chunk, Vector* x, Vector q) {
  const std::size_t top = roots.degree() / kBatchWords + chunk;
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) inverse_butterfly(x[2 * i], x[2 * i + 1], roots.at(4 * top + i), q);
#pragma GCC unroll 4
  for (std::size_t i : {0, 1, 4, 5}) inverse_butterfly(x[i], x[i + 2], roots.at(2 * top + i / 4), q);
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) inverse_butterfly(x[i], x[i + 4], roots.at(top), q);
}

inline void forward_rows(const ColumnRoots& roots, std::size_t chunk, Vector* x, Vector q) {
  const std::size_t top = roots.degree() / kBatchWords + chunk;
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) forward_butterfly(x[i], x[i + 4], roots.at(top), q);
#pragma GCC unroll 4
  for (std::size_t i : {0, 1, 4, 5}) forward_butterfly(x[i], x[i + 2], roots.at(2 * top + i / 4), q);
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) forward_butterfly(x[2 * i], x[2 * i + 1], roots.at(4 * top + i), q);
}

// The inverse of chacha20.hpp's columns_to_rows, with the levels above 8 on the way.
void forward_chunk(const ColumnRoots& roots, std::size_t chunk, Word* row, Word* scratch) {
  const Vector q = roots.modulus();
  for (std::size_t half = 0; half < 2; ++half) {
    Vector x[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) x[l] = load(row + kColumns * l + kLanes * half);
    forward_rows(roots, chunk, x, q);
    transpose(x);
    for (std::size_t w = 0; w < kLanes; ++w) store(scratch + kLanes * (kLanes * half + w), x[w]);
  }
  const auto levels = [&](const Word* in, Word* out) {
    return [=](std::size_t w, std::size_t step, const Factor& inner0, const Factor& inner1, const Factor& outer) {
      Vector x[4];
      for (std::size_t i = 0; i < 4; ++i) x[i] = load(in + kLanes * (w + i * step));
      forward_pair(x, inner0, inner1, outer, q);
      for (std::size_t i = 0; i < 4; ++i) store(out + kLanes * (w + i * step), x[i]);
    };
  };
  over_columns<2>(roots, chunk, levels(scratch, scratch));
  over_columns<0>(roots, chunk, levels(scratch, row));
}

}  // namespace

ColumnFactor::ColumnFactor(const Ring32& ring, std::size_t l, const Multiplier<Word>& multiplier)
    : values_(ring.degree()), companions_(ring.degree()) {
  const std::size_t start = l * ring.degree();
  for (std::size_t k = 0; k < ring.degree(); k += kBatchWords) {
    rows_to_columns(multiplier.values + start + k, values_.data() + k);
    rows_to_columns(multiplier.companions + start + k, companions_.data() + k);
  }
}

ColumnFactor::ColumnFactor(std::size_t degree, Word value, Word companion) : values_(degree), companions_(degree) {
  std::fill(values_.begin(), values_.end(), value);
  std::fill(companions_.begin(), companions_.end(), companion);
}

// Lane l of vector w belongs to residue 128 chunk + 16 l + w, and that at level h to group number residue / 2^(h + 1).
ColumnRoots::ColumnRoots(const Prime32& prime, unsigned log_degree, Direction direction)
    : prime_(prime),
      log_degree_(log_degree),
      roots_(direction == Direction::kForward ? prime.roots : prime.inverse_roots),
      companions_(direction == Direction::kForward ? prime.root_companions : prime.inverse_root_companions),
      lane_roots_(degree() / kBatchWords * kLaneRoots) {
  LaneRoots* out = lane_roots_.data();
  for (std::size_t start = 0; start < degree(); start += kBatchWords) {
    for (unsigned level = 0; level < 4; ++level) {
      for (std::size_t w = 0; w < kColumns; w += std::size_t{2} << level, ++out) {
        for (std::size_t l = 0; l < kLanes; ++l) {
          const std::size_t at = (degree() + start + kColumns * l + w) >> (level + 1);
          out->roots[l] = roots_[at];
          out->companions[l] = companions_[at];
        }
      }
    }
  }
}

void multiply_and_invert_chunk(const ColumnRoots& roots, const ColumnFactor& factor, std::size_t chunk, const Word* in,
                               Word* scratch, Word* out) {
  const Vector q = roots.modulus();
  over_columns<0>(roots, chunk, [&](std::size_t w, std::size_t step, const auto&... factors) {
    Vector x[4];
    for (std::size_t i = 0; i < 4; ++i) {
      const std::size_t at = kLanes * (w + i * step);
      x[i] = multiply_shoup(load(in + at), factor.at(chunk * kBatchWords + at), q);
    }
    inverse_pair(x, factors..., q);
    for (std::size_t i = 0; i < 4; ++i) store(scratch + kLanes * (w + i * step), x[i]);
  });
  over_columns<2>(roots, chunk, [&](std::size_t w, std::size_t step, const auto&... factors) {
    Vector x[4];
    for (std::size_t i = 0; i < 4; ++i) x[i] = load(scratch + kLanes * (w + i * step));
    inverse_pair(x, factors..., q);
    for (std::size_t i = 0; i < 4; ++i) store(scratch + kLanes * (w + i * step), x[i]);
  });
  for (std::size_t half = 0; half < 2; ++half) {
    Vector x[kLanes];
    for (std::size_t w = 0; w < kLanes; ++w) x[w] = load(scratch + kLanes * (kLanes * half + w));
    transpose(x);
    inverse_rows(roots, chunk, x, q);
    for (std::size_t l = 0; l < kLanes; ++l) store(out + kColumns * l + kLanes * half, x[l]);
  }
}

void invert_above_chunks(const ColumnRoots& roots, Word* row) {
  std::size_t half = kBatchWords;
  for (; 4 * half <= roots.degree(); half *= 4) double_level<inverse_pair>(roots, half, row);
  if (2 * half == roots.degree()) top_level<inverse_butterfly>(roots, row);
}

void multiply_and_invert(const ColumnRoots& roots, const ColumnFactor& factor, const Word* in, Word* scratch,
                         Word* out) {
  for (std::size_t chunk = 0; chunk < roots.degree() / kBatchWords; ++chunk) {
    const std::size_t at = chunk * kBatchWords;
    multiply_and_invert_chunk(roots, factor, chunk, in + at, scratch, out + at);
  }
  invert_above_chunks(roots, out);
}

void forward_to_columns(const ColumnRoots& roots, Word* row) {
  // Levels above the chunks go in pairs from the bottom; one is left over at the top when their number is odd.
  std::size_t half = roots.degree() / 4;
  if ((roots.log_degree() - kSmallestLogDegree) % 2 == 1) {
    top_level<forward_butterfly>(roots, row);
    half /= 2;
  }
  for (; half >= kBatchWords; half /= 4) double_level<forward_pair>(roots, half, row);
  SecretBuffer<Word> scratch(kBatchWords);
  for (std::size_t chunk = 0; chunk < roots.degree() / kBatchWords; ++chunk) {
    forward_chunk(roots, chunk, row + chunk * kBatchWords, scratch.data());
  }
}

}  // namespace pppml::kernels::avx2
