// Weights to message coefficients, and residues to bytes.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::scalar {

void quantize(const Message& message, std::size_t first, std::size_t count, std::int64_t* out);
void load_values(const Message& message, std::size_t first, std::size_t count, double* out);

template <class Word>
void pack_row(const PrimeTable<Word>& prime, const Word* in, std::size_t count, std::uint8_t* out);

template <class Word>
bool unpack_row(const PrimeTable<Word>& prime, const std::uint8_t* in, std::size_t count, Word* out);

}  // namespace pppml::kernels::scalar
