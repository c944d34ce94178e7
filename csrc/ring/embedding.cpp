#include "ring/embedding.hpp"

#include <cmath>

#include "base/check.hpp"

namespace pppml::ring {
namespace {

using kernels::kEmbeddingRows;

// cos(pi e / N) for e in [0, 2N), from angles of at most an eighth of a turn, where long double leaves no doubt about
// the last bit of a double but once in thousands.
double cosine(std::uint64_t exponent, std::uint64_t degree) {
  const std::uint64_t half_turn = degree, turn = 2 * degree;
  std::uint64_t e = exponent % turn;
  if (e > half_turn) e = turn - e;
  const bool negative = e > half_turn / 2;
  if (negative) e = half_turn - e;
  const long double angle = std::acos(-1.0L) / static_cast<long double>(degree);
  const long double value = e <= half_turn / 4 ? std::cos(angle * static_cast<long double>(e))
                                               : std::sin(angle * static_cast<long double>(half_turn / 2 - e));
  return static_cast<double>(negative ? -value : value);
}

}  // namespace

Embedding::Embedding(unsigned log_degree)
    : re_(std::size_t{1} << (log_degree - 1)), im_(re_.size()), positions_(re_.size()) {
  require(log_degree >= 7 && log_degree <= 16, "ring dimension 2^", log_degree, " is outside 2^7 .. 2^16");
  const std::size_t slots = re_.size(), degree = 2 * slots, turn = 2 * degree, width = slots / kEmbeddingRows;
  // Node n holds the e of its polynomial X^h - zeta^e; its children are X^(h/2) -+ zeta^(e/2).
  std::vector<std::uint64_t> exponents(2 * slots);
  exponents[1] = degree / 2;
  for (std::size_t groups = 1; groups < slots; groups *= 2) {
    for (std::size_t g = 0; g < groups; ++g) {
      const std::size_t node = groups + g;
      const std::uint64_t root = exponents[node] / 2;
      exponents[2 * node] = root;
      exponents[2 * node + 1] = root + degree;
      const std::size_t inner = groups / kEmbeddingRows;
      const std::size_t at = inner == 0 ? node : kEmbeddingRows * (inner + g % inner) + g / inner;
      re_[at] = cosine(root, degree);
      im_[at] = cosine(root + turn - degree / 2, degree);  // sin x = cos(x - quarter turn)
    }
  }
  // Leaf number i, in the order of the tree, is column i mod width of row i / width.
  std::vector<std::uint32_t> position_of(turn);
  for (std::size_t i = 0; i < slots; ++i) {
    position_of[exponents[slots + i]] = static_cast<std::uint32_t>((i % width) * kEmbeddingRows + i / width);
  }
  std::uint64_t exponent = 1;
  for (std::size_t j = 0; j < slots; ++j, exponent = exponent * 5 % turn) positions_[j] = position_of[exponent];
  table_ = {log_degree - 1, re_.data(), im_.data()};
}

}  // namespace pppml::ring
