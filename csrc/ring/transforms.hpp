// Batches of rows between coefficient form and NTT form.
#pragma once

#include <cstdint>

#include "kernels/contract.hpp"
#include "ring/ring.hpp"

namespace pppml::ring {

enum class Direction { kForward, kInverse };

// In place and on several threads: `polynomials` times the rows of the first `level` primes of the ring, residues below
// them.
void transform_rows(const Ring<std::uint64_t>& ring, const kernels::KernelTable<std::uint64_t>& kernels,
                    Direction direction, std::size_t polynomials, std::size_t level, std::uint64_t* rows);

}  // namespace pppml::ring
