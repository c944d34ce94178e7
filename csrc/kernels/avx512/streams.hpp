// Streams and samplers of the contract, sixteen lanes at a time.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

void stream(PrivateStream source, std::uint32_t selector, std::uint64_t block, std::uint64_t first, std::size_t count,
            std::uint32_t* out);

void gaussian(const GaussianTable& table, PrivateStream source, Lane lane, std::uint64_t block, std::size_t count,
              std::int32_t* out);

void ternary(PrivateStream source, Lane lane, std::uint64_t block, std::size_t count, std::int32_t* out);

}  // namespace pppml::kernels::avx512
