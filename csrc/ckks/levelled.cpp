#include "ckks/levelled.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/check.hpp"
#include "base/parallel.hpp"
#include "kernels/registry.hpp"
#include "ring/transforms.hpp"

namespace pppml::ckks {
namespace {

constexpr double kCoefficientLimit = 0x1p62;
// Decrypted integers are put together in float64, which ends at 2^1024.
constexpr double kMostModulusBits = 1000;

const Parameters& checked(const Parameters& parameters) {
  require(parameters.slots(), "levelled ciphertexts hold slots; use parameters with packing='slots' or 'real_slots'");
  require(parameters.log2_modulus() <= kMostModulusBits, "a modulus of 2^", parameters.log2_modulus(),
          " exceeds the 2^1000 of levelled ciphertexts; use fewer primes");
  return parameters;
}

}  // namespace

Levelled::Levelled(const Parameters& parameters, const std::string& backend)
    : ring_(checked(parameters).log_degree(), parameters.primes()),
      kernels_(kernels::kernels<Word>(kernels::choose_backend(backend))),
      codec_(parameters.log_degree(), parameters.packing() == Packing::kSlots, {kernels_.embed, kernels_.unembed}),
      factor_codec_(parameters.log_degree(), false, {kernels_.embed, kernels_.unembed}) {
  const std::size_t count = ring_.prime_count();
  inverses_.resize(count), companions_.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    const Word q = ring_.table().primes[i].modulus;
    moduli_.push_back(barrett_modulus(q));
    for (std::size_t j = 0; j < i; ++j) {
      inverses_[i].push_back(power_mod<Word>(ring_.table().primes[j].modulus % q, q - 2, q));
      companions_[i].push_back(shoup_companion(inverses_[i].back(), q));
    }
  }
}

// body(prime index, where its row begins) for every row of a vector.
template <class Body>
void Levelled::over_rows(const Shape& shape, Body body) const {
  require(shape.level >= 1 && shape.level <= ring_.prime_count(), "level ", shape.level, " is outside 1 .. ",
          ring_.prime_count());
  parallel_for(shape.blocks * shape.level, 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) body(row % shape.level, row * degree());
  });
}

void Levelled::forward(const Shape& shape, Word* rows) const {
  ring::transform_rows(ring_, kernels_, ring::Direction::kForward, shape.blocks, shape.level, rows);
}

void Levelled::inverse(const Shape& shape, Word* rows) const {
  ring::transform_rows(ring_, kernels_, ring::Direction::kInverse, shape.blocks, shape.level, rows);
}

void Levelled::add(const Shape& shape, const Word* a, const Word* b, Word* out) const {
  over_rows(shape, [&](std::size_t l, std::size_t at) {
    for (std::size_t k = at; k < at + degree(); ++k) out[k] = add_mod(a[k], b[k], moduli_[l].q);
  });
}

void Levelled::subtract(const Shape& shape, const Word* a, const Word* b, Word* out) const {
  over_rows(shape, [&](std::size_t l, std::size_t at) {
    for (std::size_t k = at; k < at + degree(); ++k) out[k] = subtract_mod(a[k], b[k], moduli_[l].q);
  });
}

void Levelled::multiply(const Shape& shape, const Word* a, const Word* b, Word* out) const {
  over_rows(shape, [&](std::size_t l, std::size_t at) {
    for (std::size_t k = at; k < at + degree(); ++k) out[k] = multiply_barrett(a[k], b[k], moduli_[l]);
  });
}

void Levelled::multiply_integer(const Shape& shape, const Word* a, std::int64_t factor, Word* out) const {
  over_rows(shape, [&](std::size_t l, std::size_t at) {
    const auto& prime = ring_.table().primes[l];
    const Word residue = reduce_signed<Word>(factor, prime.modulus, prime.ratio, prime.lift);
    const Word companion = shoup_companion(residue, prime.modulus);
    for (std::size_t k = at; k < at + degree(); ++k) {
      out[k] = multiply_shoup(a[k], residue, companion, prime.modulus);
    }
  });
}

void Levelled::encode(const Shape& shape, const double* values, bool factors, double scale, Word* out) const {
  const SlotCodec& codec = factors ? factor_codec_ : codec_;
  std::atomic<bool> fits{true};
  parallel_for(shape.blocks, 1, [&](std::size_t begin, std::size_t end) {
    Buffer<double> scratch(degree()), coefficients(degree());
    for (std::size_t b = begin; b < end; ++b) {
      codec.encode(values + b * codec.block_weights(), scratch.data(), coefficients.data());
      for (std::size_t k = 0; k < degree(); ++k) {
        coefficients[k] = std::nearbyint(coefficients[k] * scale);
        if (!(std::fabs(coefficients[k]) < kCoefficientLimit)) {
          fits = false;
          coefficients[k] = 0;
        }
      }
      for (std::size_t l = 0; l < shape.level; ++l) {
        const auto& prime = ring_.table().primes[l];
        Word* row = out + (b * shape.level + l) * degree();
        for (std::size_t k = 0; k < degree(); ++k) {
          row[k] =
              reduce_signed<Word>(static_cast<std::int64_t>(coefficients[k]), prime.modulus, prime.ratio, prime.lift);
        }
      }
    }
  });
  require(fits, "at scale 2^", std::log2(scale),
          " a coefficient reaches 2^62, or a value is not finite; use a lower scale");
  forward(shape, out);
}

void Levelled::rescale(const Shape& shape, const Word* in, Word* out) const {
  require(shape.level >= 2, "level 1 has no prime to rescale by; use parameters with more primes");
  const std::size_t last = shape.level - 1;
  const auto& dropped = ring_.table().primes[last];
  parallel_for(shape.blocks, 1, [&](std::size_t begin, std::size_t end) {
    Buffer<Word> remainder(degree()), row(degree());
    for (std::size_t b = begin; b < end; ++b) {
      const Word* from = in + b * shape.level * degree();
      std::copy(from + last * degree(), from + shape.level * degree(), remainder.begin());
      kernels_.inverse_ntt(dropped, ring_.table().log_degree, remainder.data());
      for (std::size_t l = 0; l < last; ++l, from += degree()) {
        const auto& prime = ring_.table().primes[l];
        const Word q = prime.modulus;
        for (std::size_t k = 0; k < degree(); ++k) {
          const auto centred = static_cast<std::int64_t>(remainder[k]) -
                               static_cast<std::int64_t>(remainder[k] > dropped.modulus / 2 ? dropped.modulus : 0);
          row[k] = reduce_signed<Word>(centred, q, prime.ratio, prime.lift);
        }
        kernels_.forward_ntt(prime, ring_.table().log_degree, row.data());
        const Word inverse = power_mod<Word>(dropped.modulus % q, q - 2, q);
        const Word companion = shoup_companion(inverse, q);
        Word* to = out + (b * last + l) * degree();
        for (std::size_t k = 0; k < degree(); ++k) {
          to[k] = multiply_shoup(subtract_mod(from[k], row[k], q), inverse, companion, q);
        }
      }
    }
  });
}

SecretBuffer<std::uint64_t> Levelled::transformed(const SecretKey& secret) const {
  const auto& coefficients = secret.coefficients();
  require(coefficients.size() == degree(), "the secret key belongs to another ring");
  const Shape shape{1, ring_.prime_count()};
  SecretBuffer<Word> rows(words(shape));
  for (std::size_t l = 0; l < shape.level; ++l) {
    const auto& prime = ring_.table().primes[l];
    for (std::size_t k = 0; k < degree(); ++k) {
      rows[l * degree() + k] = reduce_signed<Word>(coefficients[k], prime.modulus, prime.ratio, prime.lift);
    }
  }
  forward(shape, rows.data());
  wipe_stack();
  return rows;
}

void Levelled::compose(std::size_t level, Word* rows, double scale, double* coefficients) const {
  double weights[32];  // products of the primes before each
  double product = 1;
  for (std::size_t i = 0; i < level; ++i) {
    weights[i] = product;
    product *= static_cast<double>(moduli_[i].q);
  }
  for (std::size_t k = 0; k < degree(); ++k) {
    // Mixed-radix digits: x = d_0 + q_0 (d_1 + q_1 (d_2 + ...)), in place of the residues.
    for (std::size_t i = 1; i < level; ++i) {
      const auto& prime = ring_.table().primes[i];
      Word digit = rows[i * degree() + k];
      for (std::size_t j = 0; j < i; ++j) {
        const Word before = reduce_signed<Word>(static_cast<std::int64_t>(rows[j * degree() + k]), prime.modulus,
                                                prime.ratio, prime.lift);
        digit = multiply_shoup(subtract_mod(digit, before, prime.modulus), inverses_[i][j], companions_[i][j],
                               prime.modulus);
      }
      rows[i * degree() + k] = digit;
    }
    // (Q - 1) / 2 has the digits (q_i - 1) / 2, and Q - 1 - x those of x from q_i - 1: above half, minus (Q - x). What
    // is decrypted decides no branch.
    Word negative = 0;
    for (std::size_t i = 0; i < level; ++i) {
      const Word digit = rows[i * degree() + k], half = moduli_[i].q / 2;
      const Word above = (half - digit) >> 63, different = (digit ^ half) != 0;
      negative = (different & above) | (~different & 1 & negative);
    }
    const Word mask = Word{0} - negative;
    double x = static_cast<double>(negative);
    for (std::size_t i = 0; i < level; ++i) {
      const Word digit = rows[i * degree() + k], mirrored = moduli_[i].q - 1 - digit;
      x += static_cast<double>((mirrored & mask) | (digit & ~mask)) * weights[i];
    }
    coefficients[k] = x * (1 - 2 * static_cast<double>(negative)) / scale;
  }
}

void Levelled::decrypt(const Shape& shape, const Word* c0, const Word* c1, const SecretBuffer<Word>& secret,
                       double scale, double* out) const {
  require(shape.level >= 1 && shape.level <= ring_.prime_count(), "level ", shape.level, " is outside 1 .. ",
          ring_.prime_count());
  parallel_for(shape.blocks, 1, [&](std::size_t begin, std::size_t end) {
    SecretBuffer<Word> phase(shape.level * degree());
    SecretBuffer<double> coefficients(degree()), scratch(degree());
    for (std::size_t b = begin; b < end; ++b) {
      for (std::size_t l = 0; l < shape.level; ++l) {
        const std::size_t at = (b * shape.level + l) * degree();
        Word* row = phase.data() + l * degree();
        for (std::size_t k = 0; k < degree(); ++k) {
          const Word product = multiply_barrett(c1[at + k], secret[l * degree() + k], moduli_[l]);
          row[k] = add_mod(c0[at + k], product, moduli_[l].q);
        }
        kernels_.inverse_ntt(ring_.table().primes[l], ring_.table().log_degree, row);
      }
      compose(shape.level, phase.data(), scale, coefficients.data());
      codec_.decode(coefficients.data(), scratch.data(), out + b * codec_.block_weights());
    }
    wipe_stack();
  });
}

}  // namespace pppml::ckks
