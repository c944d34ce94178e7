#include "ring/transforms.hpp"

#include "base/check.hpp"
#include "base/parallel.hpp"

namespace pppml::ring {

void transform_rows(const Ring<std::uint64_t>& ring, const kernels::KernelTable<std::uint64_t>& kernels,
                    Direction direction, std::size_t polynomials, std::size_t level, std::uint64_t* rows) {
  require(level >= 1 && level <= ring.prime_count(), "level ", level, " is outside 1 .. ", ring.prime_count());
  const auto ntt = direction == Direction::kForward ? kernels.forward_ntt : kernels.inverse_ntt;
  parallel_for(polynomials * level, 4, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      ntt(ring.table().primes[row % level], ring.table().log_degree, rows + row * ring.degree());
    }
  });
}

}  // namespace pppml::ring
