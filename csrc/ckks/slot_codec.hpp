// Weights to the coefficients of a polynomial that holds them in its slots, and back.
#pragma once

#include "ckks/parameters.hpp"
#include "kernels/contract.hpp"
#include "ring/embedding.hpp"

namespace pppml::ckks {

// The two transforms of a backend, KernelTable::embed and unembed.
struct EmbeddingKernels {
  void (*embed)(const kernels::EmbeddingTable&, double* coefficients, double* values);
  void (*unembed)(const kernels::EmbeddingTable&, double* values, double* coefficients);
};

// One block: weight t < M is the real part of slot t, weight M + t, where both halves are used, its imaginary part.
class SlotCodec {
 public:
  SlotCodec(unsigned log_degree, bool both_halves, EmbeddingKernels kernels)
      : embedding_(log_degree), both_halves_(both_halves), kernels_(kernels) {}

  std::size_t degree() const { return 2 * embedding_.slots(); }
  std::size_t block_weights() const { return both_halves_ ? degree() : embedding_.slots(); }

  // block_weights() weights -> N coefficients; `scratch` holds N.
  void encode(const double* weights, double* scratch, double* coefficients) const;
  // N coefficients, overwritten -> block_weights() weights; `scratch` holds N.
  void decode(double* coefficients, double* scratch, double* weights) const;

 private:
  ring::Embedding embedding_;
  bool both_halves_;
  EmbeddingKernels kernels_;
};

}  // namespace pppml::ckks
