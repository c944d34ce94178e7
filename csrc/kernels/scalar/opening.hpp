// From the phases of one block to its message coefficients and its residual check.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::scalar {

// rows: L rows of N residues, of which `length` count. Writes `length` message coefficients of block b of the request
// and updates its report.
template <class Word>
void round_phases(const OpenRequest<Word>& request, std::size_t b, std::size_t length, const Word* rows,
                  std::int64_t* coefficients);

// The values in the `length` message coefficients of block b, blocks holding `block_values` values, to where they go.
void store_values(const OpenTarget& target, std::size_t block_values, std::size_t b, std::size_t length,
                  const std::int64_t* coefficients);

// Notes in the report what the residuals of block b came to.
void report_residuals(OpenReport* report, std::uint64_t block, std::int64_t largest, double squares, double limit);

}  // namespace pppml::kernels::scalar
