#include "kernels/avx2/embedding.hpp"

#include "kernels/embedding.hpp"

namespace pppml::kernels::avx2 {

void embed(const EmbeddingTable& table, double* coefficients, double* values) {
  kernels::embed(table, coefficients, values);
}

void unembed(const EmbeddingTable& table, double* values, double* coefficients) {
  kernels::unembed(table, values, coefficients);
}

}  // namespace pppml::kernels::avx2
