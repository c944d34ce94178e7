// Tables of the canonical embedding: roots for the kernels, and where each slot stands in their order.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/contract.hpp"

namespace pppml::ring {

// The embedding of polynomials of degree N = 2^log_degree, log_degree >= 7. Slot j is the value at zeta^(5^j), zeta =
// exp(i pi / N): the order of HEAAN and OpenFHE. (SEAL takes powers of 3.)
class Embedding {
 public:
  explicit Embedding(unsigned log_degree);
  Embedding(const Embedding&) = delete;
  Embedding& operator=(const Embedding&) = delete;

  const kernels::EmbeddingTable& table() const { return table_; }
  std::size_t slots() const { return table_.slots(); }
  // Where slot j stands among the values of KernelTable::embed.
  std::size_t position(std::size_t slot) const { return positions_[slot]; }

 private:
  std::vector<double> re_, im_;
  std::vector<std::uint32_t> positions_;
  kernels::EmbeddingTable table_;
};

}  // namespace pppml::ring
