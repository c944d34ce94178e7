// The canonical embedding, compiled for AVX-512.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

// KernelTable::embed and unembed
void embed(const EmbeddingTable& table, double* coefficients, double* values);
void unembed(const EmbeddingTable& table, double* values, double* coefficients);

}  // namespace pppml::kernels::avx512
