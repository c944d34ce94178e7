// The transforms of a ring, each with the constant factor of its row.
#pragma once

#include <memory>
#include <vector>

#include "kernels/avx512/transform32.hpp"

namespace pppml::kernels::avx512 {

// A transform and a constant factor for every prime of a ring.
class Products {
 public:
  Products(const RingTable<std::uint32_t>& ring, const Multiplier<std::uint32_t>& factor, bool negative) {
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const std::size_t at = l * ring.degree();
      transforms_.push_back(std::make_unique<Transform32>(ring.primes[l], ring.log_degree));
      factors_.push_back(std::make_unique<ColumnFactor>(ring.primes[l], ring.degree(), factor.values + at,
                                                        factor.companions + at, negative));
    }
  }

  const Transform32& transform(std::size_t l) const { return *transforms_[l]; }
  const ColumnFactor& factor(std::size_t l) const { return *factors_[l]; }

 private:
  std::vector<std::unique_ptr<Transform32>> transforms_;
  std::vector<std::unique_ptr<ColumnFactor>> factors_;
};

}  // namespace pppml::kernels::avx512
