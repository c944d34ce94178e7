#include "kernels/avx512/embedding.hpp"

#include "kernels/embedding.hpp"

namespace pppml::kernels::avx512 {

void embed(const EmbeddingTable& table, double* coefficients, double* values) {
  kernels::embed(table, coefficients, values);
}

void unembed(const EmbeddingTable& table, double* values, double* coefficients) {
  kernels::unembed(table, values, coefficients);
}

}  // namespace pppml::kernels::avx512
