#include "ckks/scheme.hpp"

#include <algorithm>
#include <cmath>

#include "base/check.hpp"
#include "ckks/scheme_impl.hpp"
#include "kernels/registry.hpp"

namespace pppml::ckks {
namespace {

// Rounding of the clip, the multiplier and their product may carry the clip past the largest magnitude, which the law
// does not admit; the multiplier is then lowered by units in its last place.
template <class Float>
double bounded_multiplier(double clip, double multiplier, std::int64_t largest, Rounding rounding) {
  const auto reach = [&](Float factor) {
    const Float scaled = static_cast<Float>(clip) * factor;
    return rounding == Rounding::kNearest ? std::rint(scaled) : std::ceil(scaled);
  };
  auto factor = static_cast<Float>(multiplier);
  while (reach(factor) > static_cast<Float>(largest)) factor = std::nextafter(factor, Float{0});
  return factor;
}

kernels::StreamCipher cipher_named(const std::string& name, kernels::StreamCipher preferred) {
  if (name.empty()) return preferred;
  require(name == "chacha20" || name == "aes256", "no stream cipher '", name, "'; there are chacha20 and aes256");
  return name == "chacha20" ? kernels::StreamCipher::kChaCha20 : kernels::StreamCipher::kAes256;
}

// Public-key noise is no longer independent between coefficients (it is e * u + e1 * s); its squared norm spreads
// wider than a chi-square, so the residual check takes twice the declared variance. Garbage has 79 times it.
constexpr double kPublicResidualMargin = 2;

template <class Word>
std::unique_ptr<Scheme> create_scheme(const Parameters& parameters, const std::string& backend,
                                      const std::string& cipher) {
  const kernels::StreamCipher preferred = kernels::kernels<Word>(backend).private_cipher;
  return std::make_unique<SchemeImpl<Word>>(parameters, backend, cipher_named(cipher, preferred));
}

}  // namespace

const KeyBuffer<std::int64_t>& SecretKey::coefficients() const {
  owner_.check();
  return coefficients_;
}

double SecretKey::squared_norm() const {
  double sum = 0;
  for (std::int64_t c : coefficients()) sum += static_cast<double>(c) * static_cast<double>(c);
  return sum;
}

std::unique_ptr<Scheme> Scheme::create(const Parameters& parameters, const std::string& backend,
                                       const std::string& cipher) {
  const std::string chosen = kernels::choose_backend(backend);
  return parameters.narrow_words() ? create_scheme<std::uint32_t>(parameters, chosen, cipher)
                                   : create_scheme<std::uint64_t>(parameters, chosen, cipher);
}

std::uint64_t Scheme::last_row(const Extent& extent) const {
  return extent.cut ? parameters_.last_row_length(extent.length) : parameters_.ring_dimension();
}

std::size_t Scheme::words(const Extent& extent) const {
  return words(extent, 0, parameters_.block_count(extent.length));
}

std::size_t Scheme::words(const Extent& extent, std::uint64_t start, std::uint64_t stop) const {
  const kernels::Batch range = batch(extent, start, stop);
  if (range.blocks == 0) return 0;
  return ((range.blocks - 1) * parameters_.ring_dimension() + range.last_length) * parameters_.primes().size();
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
  codec.clip = parameters_.quantized_clip();
  codec.single_precision = parameters_.single_precision();
  const auto bounded = codec.single_precision ? bounded_multiplier<float> : bounded_multiplier<double>;
  codec.multiplier =
      bounded(codec.clip, weight / parameters_.step(), parameters_.headroom().max_magnitude, parameters_.rounding());
  codec.rounding = parameters_.rounding();
  codec.block_values = parameters_.block_integers();
  codec.values_per_coefficient = parameters_.values_per_coefficient();
  codec.base = parameters_.headroom().base;
  codec.delta = parameters_.headroom().delta;
  return codec;
}

double Scheme::residual_variance(std::uint64_t terms) const {
  const KeyMode mode = parameters_.keys();
  return noise_variance(mode, parameters_.ring_dimension()) * static_cast<double>(terms) *
         (mode == KeyMode::kPublic ? kPublicResidualMargin : 1);
}

std::uint64_t Scheme::weights(const Range& range) const {
  const std::uint64_t first = std::min(range.start * parameters_.block_weights(), range.length);
  return std::min(range.stop * parameters_.block_weights(), range.length) - first;
}

std::uint64_t Scheme::integers(const Range& range) const {
  if (!parameters_.slots()) return weights(range);
  return (range.stop - range.start) * parameters_.ring_dimension();
}

}  // namespace pppml::ckks
