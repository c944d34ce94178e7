// From phases modulo one prime below 2^50 to message coefficients and opened values.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

// Whether round_phases50 may take the request; scalar::round_phases takes the others.
bool rounds50(const OpenRequest<std::uint64_t>& request);

// Rounds the `length` phases row + c0 of block b of the request, row in [0, 2 q) and c0 in [0, q), to message
// coefficients and updates its report.
void round_phases50(const OpenRequest<std::uint64_t>& request, std::size_t b, std::size_t length,
                    const std::uint64_t* row, const std::uint64_t* c0, std::int64_t* coefficients);

// What scalar::store_values does, for coefficients below 2^50.
void store_values50(const OpenTarget& target, std::size_t block_values, std::size_t b, std::size_t length,
                    const std::int64_t* coefficients);

}  // namespace pppml::kernels::avx512
