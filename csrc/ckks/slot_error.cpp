#include "ckks/slot_error.hpp"

#include <algorithm>
#include <cmath>

namespace pppml::ckks {

double slot_error(const Parameters& parameters) {
  const double degree = static_cast<double>(parameters.ring_dimension());
  const double parties = static_cast<double>(parameters.parties());
  const bool stochastic = parameters.rounding() == Rounding::kStochastic;
  const double product = std::ldexp(static_cast<double>(parameters.headroom().max_magnitude), -53);
  const double worst = 0.64 * degree * parties * ((stochastic ? 1 : 0.5) + product);
  const double likely = 5.46 * std::sqrt(parties * degree) + 0.64 * degree * parties * product;
  const double rounding = (stochastic ? std::min(worst, likely) : worst) * parameters.step();

  const double reach = parameters.clip() * (parameters.weights() == WeightPolicy::kFree ? parties : 1);
  const double levels = parameters.log_degree() - 1;
  const double transforms = 2 * 8 * (levels + 1) * std::ldexp(std::sqrt(degree) * reach, -53);
  if (!parameters.approximate()) return rounding + transforms;

  const double variance = noise_variance(parameters.keys(), parameters.ring_dimension()) * parties;
  return rounding + transforms + 15.45 * std::sqrt(variance * degree / 2) * parameters.step();
}

}  // namespace pppml::ckks
