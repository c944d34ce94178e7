#include "ring/primes.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "base/modular.hpp"

namespace pppml::ring {
namespace {

// One round of Miller and Rabin: n - 1 = odd * 2^twos.
bool is_witness(std::uint64_t base, std::uint64_t n, std::uint64_t odd, unsigned twos) {
  std::uint64_t x = power_mod(base % n, odd, n);
  if (x == 0 || x == 1 || x == n - 1) return false;
  for (unsigned i = 1; i < twos; ++i) {
    x = multiply_mod(x, x, n);
    if (x == n - 1) return false;
  }
  return true;
}

}  // namespace

bool is_prime(std::uint64_t n) {
  // These twelve bases decide every n < 3.3e24 [Sorenson and Webster 2017].
  constexpr std::uint64_t kBases[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37};
  if (n < 2) return false;
  for (std::uint64_t p : kBases) {
    if (n % p == 0) return n == p;
  }
  std::uint64_t odd = n - 1;
  unsigned twos = 0;
  for (; odd % 2 == 0; odd /= 2) ++twos;
  return std::none_of(std::begin(kBases), std::end(kBases),
                      [&](std::uint64_t base) { return is_witness(base, n, odd, twos); });
}

std::uint64_t least_primitive_root(std::uint64_t q, unsigned log_order) {
  const std::uint64_t order = std::uint64_t{1} << log_order;
  require((q - 1) % order == 0, "modulus ", q, " is not 1 modulo ", order, ": it has no negacyclic transform");
  std::uint64_t root = 0;
  for (std::uint64_t g = 2; root == 0; ++g) {
    const std::uint64_t candidate = power_mod(g, (q - 1) / order, q);
    if (power_mod(candidate, order / 2, q) == q - 1) root = candidate;
  }
  // The primitive roots are the odd powers of any one of them.
  const std::uint64_t step = multiply_mod(root, root, q);
  std::uint64_t least = root;
  for (std::uint64_t i = 1; i < order / 2; ++i) {
    root = multiply_mod(root, step, q);
    least = std::min(least, root);
  }
  return least;
}

}  // namespace pppml::ring
