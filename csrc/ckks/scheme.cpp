#include "ckks/scheme.hpp"

#include <algorithm>
#include <cmath>

#include "base/check.hpp"
#include "ckks/scheme_impl.hpp"
#include "kernels/registry.hpp"

namespace pppml::ckks {
namespace {

// Rounding of the clip, the multiplier and their product may carry the clip one past the largest magnitude, which the
// law does not admit; the multiplier is then lowered by units in its last place.
template <class Float>
double bounded_multiplier(double clip, double multiplier, std::int64_t largest) {
  auto factor = static_cast<Float>(multiplier);
  while (std::rint(static_cast<Float>(clip) * factor) > static_cast<Float>(largest)) {
    factor = std::nextafter(factor, Float{0});
  }
  return factor;
}

}  // namespace

const SecretBuffer<std::int64_t>& SecretKey::coefficients() const {
  owner_.check();
  return coefficients_;
}

double SecretKey::squared_norm() const {
  double sum = 0;
  for (std::int64_t c : coefficients()) sum += static_cast<double>(c) * static_cast<double>(c);
  return sum;
}

std::unique_ptr<Scheme> Scheme::create(const Parameters& parameters, const std::string& backend) {
  const std::string chosen = kernels::choose_backend(backend);
  if (parameters.narrow_words()) return std::make_unique<SchemeImpl<std::uint32_t>>(parameters, chosen);
  return std::make_unique<SchemeImpl<std::uint64_t>>(parameters, chosen);
}

std::uint64_t Scheme::last_row(const Extent& extent) const {
  return extent.cut ? parameters_.last_row_length(extent.length) : parameters_.ring_dimension();
}

std::size_t Scheme::words(const Extent& extent) const {
  const std::uint64_t blocks = parameters_.block_count(extent.length);
  if (blocks == 0) return 0;
  return ((blocks - 1) * parameters_.ring_dimension() + last_row(extent)) * parameters_.primes().size();
}

kernels::Batch Scheme::batch(const Extent& extent, std::uint64_t start, std::uint64_t stop) const {
  const std::uint64_t blocks = parameters_.block_count(extent.length);
  require(start <= stop && stop <= blocks, "block range ", start, " .. ", stop, " is outside the ciphertext's ", blocks,
          " blocks");
  const std::uint64_t last = stop == blocks ? last_row(extent) : parameters_.ring_dimension();
  return {start, static_cast<std::size_t>(stop - start), static_cast<std::size_t>(last)};
}

kernels::Batch Scheme::all_blocks(const Extent& extent) const {
  return batch(extent, 0, parameters_.block_count(extent.length));
}

std::size_t Scheme::packed_block_bytes() const {
  return packed_bytes({2 * parameters_.block_weights(), false}, 0, 1);
}

std::size_t Scheme::packed_bytes(const Extent& extent, std::uint64_t start, std::uint64_t stop) const {
  const kernels::Batch range = batch(extent, start, stop);
  if (range.blocks == 0) return 0;
  std::size_t bytes = 0;
  for (std::uint64_t q : parameters_.primes()) {
    std::size_t bits = 0;
    for (std::uint64_t rest = q; rest != 0; rest >>= 1) ++bits;
    bytes += (range.blocks - 1) * ((parameters_.ring_dimension() * bits + 7) / 8);
    bytes += (range.last_length * bits + 7) / 8;
  }
  return bytes;
}

kernels::Codec Scheme::codec(double weight) const {
  const bool weighted = parameters_.weights() == WeightPolicy::kPublicWeights;
  require(weight > 0 && weight <= 1, "weight = ", weight, " is outside (0, 1]; weights are shares that sum to 1");
  require(weighted || weight == 1, "weight = ", weight,
          " needs parameters with weights='public', whose headroom counts the shares");
  kernels::Codec codec{};
  codec.clip = parameters_.clip();
  codec.single_precision = parameters_.single_precision();
  const auto bounded = codec.single_precision ? bounded_multiplier<float> : bounded_multiplier<double>;
  codec.multiplier = bounded(codec.clip, weight / parameters_.step(), parameters_.headroom().max_magnitude);
  codec.values_per_coefficient = parameters_.values_per_coefficient();
  codec.base = parameters_.headroom().base;
  codec.delta = parameters_.headroom().delta;
  return codec;
}

void Scheme::unpack_values(const std::int64_t* coefficients, const kernels::Batch& batch, std::size_t count,
                           std::int64_t* values) const {
  const unsigned per_coefficient = parameters_.values_per_coefficient();
  const std::int64_t base = parameters_.headroom().base;
  const std::int64_t half = parameters_.headroom().sum_bound;
  for (std::size_t b = 0; b < batch.blocks; ++b) {
    const std::size_t row = b + 1 == batch.blocks ? batch.last_length : parameters_.ring_dimension();
    const std::size_t left = std::min<std::size_t>(count, parameters_.block_weights());
    for (std::size_t k = 0; k < row; ++k) {
      std::int64_t rest = coefficients[k];
      for (unsigned t = 0; t < per_coefficient; ++t) {
        std::int64_t digit = rest;
        if (t + 1 < per_coefficient) {
          // Centred remainder: base = 2 * half + 1, so the digits lie in [-half, half].
          digit = rest % base;
          digit += digit < -half ? base : 0;
          digit -= digit > half ? base : 0;
          rest = (rest - digit) / base;
        }
        if (t * row + k < left) values[t * row + k] = digit;
      }
    }
    coefficients += row;
    values += left;
    count -= left;
  }
}

}  // namespace pppml::ckks
