// Key streams by position, and the uniform and noise samplers that read them.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::scalar {

void stream(PrivateStream source, std::uint32_t selector, std::uint64_t block, std::uint64_t first, std::size_t count,
            std::uint32_t* out);

template <class Word>
void uniform(const PrimeTable<Word>& prime, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
             std::uint64_t block, Word* out);

void gaussian(const GaussianTable& table, PrivateStream source, Lane lane, std::uint64_t block, std::size_t count,
              std::int32_t* out);

void ternary(PrivateStream source, Lane lane, std::uint64_t block, std::size_t count, std::int32_t* out);

}  // namespace pppml::kernels::scalar
