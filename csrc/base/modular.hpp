// Scalars modulo an NTT prime, for 32- and 64-bit words, usable on host and device.
//
// Every function is branch-free in its operands. Ranges stand at the signatures; q is the modulus.
#pragma once

#include <cstdint>
#include <type_traits>

#if defined(__CUDACC__)
#define PPPML_HD __host__ __device__ __forceinline__
#else
#define PPPML_HD inline
#endif

#include "base/isa.hpp"

namespace pppml {
PPPML_ISA_BEGIN

__extension__ typedef unsigned __int128 Uint128;
__extension__ typedef __int128 Int128;

template <class Word>
struct WordTraits;
template <>
struct WordTraits<std::uint32_t> {
  using Double = std::uint64_t;
  static constexpr unsigned kBits = 32;
  static constexpr unsigned kMaxModulusBits = 31;
};
template <>
struct WordTraits<std::uint64_t> {
  using Double = Uint128;
  static constexpr unsigned kBits = 64;
  static constexpr unsigned kMaxModulusBits = 60;
};

// High half of the double-word product.
template <class Word>
PPPML_HD Word multiply_high(Word a, Word b) {
  using Double = typename WordTraits<Word>::Double;
  return static_cast<Word>((static_cast<Double>(a) * b) >> WordTraits<Word>::kBits);
}

// a in [0, 2q) -> [0, q)
template <class Word>
PPPML_HD Word reduce_once(Word a, Word q) {
  const Word difference = a - q;
  const Word borrow = static_cast<Word>(0) - static_cast<Word>(difference >> (WordTraits<Word>::kBits - 1));
  return difference + (borrow & q);
}

// a, b in [0, q) -> a + b mod q in [0, q); q < 2^(bits-1), so the sum does not wrap
template <class Word>
PPPML_HD Word add_mod(Word a, Word b, Word q) {
  return reduce_once<Word>(a + b, q);
}

// a, b in [0, q) -> a - b mod q in [0, q)
template <class Word>
PPPML_HD Word subtract_mod(Word a, Word b, Word q) {
  return reduce_once<Word>(a + q - b, q);
}

// Shoup's companion of a public constant factor w in [0, q): floor(w * 2^bits / q)  [Harvey 2014, section 2]
template <class Word>
PPPML_HD Word shoup_companion(Word w, Word q) {
  using Double = typename WordTraits<Word>::Double;
  return static_cast<Word>((static_cast<Double>(w) << WordTraits<Word>::kBits) / q);
}

// Shoup's companions of secret factors: no division has to do with them, for its time may depend on its operands.
template <class Word>
class ShoupCompanions {
 public:
  // q > 2, public
  explicit PPPML_HD ShoupCompanions(Word q)
      : q_(q),
        ratio_(static_cast<Word>(kBase / q)),
        rest_companion_(shoup_companion(static_cast<Word>(kBase % q), q)) {}

  // w in [0, q) -> floor(w * 2^bits / q)
  // ratio * 2^bits + rest_companion = floor(4^bits / q); w times that falls short of w * 4^bits / q by less than w, so
  // that the quotient by 2^bits is at most one short and leaves a remainder below 2q.
  PPPML_HD Word of(Word w) const {
    const Word quotient = static_cast<Word>(w * ratio_ + multiply_high(w, rest_companion_));
    const Word remainder = static_cast<Word>(Word{0} - quotient * q_);
    const Word borrow = static_cast<Word>((remainder - q_) >> (WordTraits<Word>::kBits - 1));
    return static_cast<Word>(quotient + (borrow ^ 1));
  }

 private:
  using Double = typename WordTraits<Word>::Double;
  static constexpr Double kBase = static_cast<Double>(1) << WordTraits<Word>::kBits;

  Word q_, ratio_, rest_companion_;
};

// any a, w in [0, q) with companion -> a * w mod q in [0, q)
// The estimated quotient is at most one short for every a < 2^bits, so the remainder is below 2q.
template <class Word>
PPPML_HD Word multiply_shoup(Word a, Word w, Word companion, Word q) {
  const Word quotient = multiply_high(a, companion);
  return reduce_once<Word>(static_cast<Word>(a * w - quotient * q), q);
}

// Set-up only (not constant time, not fast): a, b in [0, q) -> a * b mod q
template <class Word>
PPPML_HD Word multiply_mod(Word a, Word b, Word q) {
  using Double = typename WordTraits<Word>::Double;
  return static_cast<Word>(static_cast<Double>(a) * b % q);
}

// A modulus of products of two variables.
struct BarrettModulus {
  std::uint64_t q, ratio_high, ratio_low;  // the halves of floor(2^128 / q)
};

// q in (2, 2^60), no power of two
PPPML_HD BarrettModulus barrett_modulus(std::uint64_t q) {
  const Uint128 ratio = ~static_cast<Uint128>(0) / q;
  return {q, static_cast<std::uint64_t>(ratio >> 64), static_cast<std::uint64_t>(ratio)};
}

// a * b mod q in [0, q) for any a, b with a * b < 2^64 q: the estimated quotient, high words of the product by the
// ratio with one carry left out, is at most one short.
PPPML_HD std::uint64_t multiply_barrett(std::uint64_t a, std::uint64_t b, const BarrettModulus& m) {
  const Uint128 product = static_cast<Uint128>(a) * b;
  const auto low = static_cast<std::uint64_t>(product), high = static_cast<std::uint64_t>(product >> 64);
  const Uint128 cross = static_cast<Uint128>(low) * m.ratio_high + multiply_high<std::uint64_t>(low, m.ratio_low);
  const Uint128 other = static_cast<Uint128>(high) * m.ratio_low + static_cast<std::uint64_t>(cross);
  const std::uint64_t quotient =
      high * m.ratio_high + static_cast<std::uint64_t>(cross >> 64) + static_cast<std::uint64_t>(other >> 64);
  return reduce_once<std::uint64_t>(low - quotient * m.q, m.q);
}

// Set-up only: base^exponent mod q
template <class Word>
PPPML_HD Word power_mod(Word base, std::uint64_t exponent, Word q) {
  Word result = 1 % q;
  for (; exponent != 0; exponent >>= 1) {
    if (exponent & 1) result = multiply_mod(result, base, q);
    base = multiply_mod(base, base, q);
  }
  return result;
}

// |value| < 2^62 -> value mod q in [0, q), with ratio = floor(2^64 / q) and
// lift = the multiple of q next above 2^62, which makes the operand non-negative.
template <class Word>
PPPML_HD Word reduce_signed(std::int64_t value, Word q, std::uint64_t ratio, std::uint64_t lift) {
  const std::uint64_t positive = static_cast<std::uint64_t>(value) + lift;
  const std::uint64_t quotient = multiply_high<std::uint64_t>(positive, ratio);
  const std::uint64_t remainder = positive - quotient * static_cast<std::uint64_t>(q);  // [0, 2q)
  return static_cast<Word>(reduce_once<std::uint64_t>(remainder, q));
}

// Quotients by a public divisor d in [1, 2^(bits-2)) without the processor's division, whose time may depend on the
// dividend.
template <class Word>
class BasicPublicDivisor {
 public:
  using Signed = std::make_signed_t<Word>;

  explicit PPPML_HD BasicPublicDivisor(Signed divisor)
      : divisor_(static_cast<Word>(divisor)), ratio_(static_cast<Word>(~Word{0}) / divisor_) {}

  // |value| < 2^(bits-1) -> value / d, rounded towards zero.
  // 2^bits / d exceeds ratio by at most 1 + 1 / d, so that the estimate is less than one short before it is rounded
  // down and leaves a remainder below 2d.
  PPPML_HD Signed divide(Signed value) const {
    const Word sign = static_cast<Word>(value >> (WordTraits<Word>::kBits - 1));
    const Word magnitude = (static_cast<Word>(value) ^ sign) - sign;
    const Word estimate = multiply_high(magnitude, ratio_);
    const Word borrow = (magnitude - estimate * divisor_ - divisor_) >> (WordTraits<Word>::kBits - 1);
    return static_cast<Signed>(((estimate + (borrow ^ 1)) ^ sign) - sign);
  }

  // The nearest integer to value / d, halves away from zero; |value| + d / 2 < 2^(bits-1).
  PPPML_HD Signed divide_rounded(Signed value) const {
    const Signed sign = value >> (WordTraits<Word>::kBits - 1);
    return divide(value + ((static_cast<Signed>(divisor_ / 2) ^ sign) - sign));
  }

 private:
  Word divisor_, ratio_;
};
using PublicDivisor = BasicPublicDivisor<std::uint64_t>;

// amount where `condition`, else 0, without a branch.
PPPML_HD std::int64_t where(bool condition, std::int64_t amount) {
  return amount & -static_cast<std::int64_t>(condition);
}

PPPML_ISA_END
}  // namespace pppml
