// Scalars modulo a prime against their definitions.
#include "base/modular.hpp"

#include <cstdint>

#include "tests/check.hpp"

using namespace pppml;

namespace {

template <class Word>
void compare(Word w, Word q) {
  CHECK_EQUAL(ShoupCompanions<Word>(q).of(w), shoup_companion(w, q));
}

// Factors near both ends, around every power of two, and 10^5 others.
template <class Word>
void compare_many(Word q) {
  for (Word i = 0; i < 1000; ++i) {
    compare<Word>(i % q, q);
    compare<Word>(q - 1 - i % q, q);
  }
  for (Word power = 2; power != 0 && power < q; power *= 2) {
    compare<Word>(power - 1, q);
    compare<Word>(power, q);
    if (power + 1 < q) compare<Word>(power + 1, q);
  }
  std::uint64_t state = 1;
  for (int i = 0; i < 100000; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    compare<Word>(static_cast<Word>((state >> 3) % q), q);
  }
}

void compare_division(std::int64_t value, std::int64_t divisor) {
  CHECK_EQUAL(PublicDivisor(divisor).divide(value), value / divisor);
  const std::int64_t half = divisor / 2;
  if (value > INT64_MAX - half || value < -(INT64_MAX - half)) return;
  CHECK_EQUAL(PublicDivisor(divisor).divide_rounded(value), (value + (value >= 0 ? half : -half)) / divisor);
}

}  // namespace

TEST(quotients_by_public_divisors_are_those_of_the_division) {
  for (std::int64_t divisor :
       {1L, 2L, 3L, 10L, 387L, 13579L, (1L << 31) - 1, 1L << 40, (1L << 61) + 1, (1L << 62) - 1}) {
    for (std::int64_t multiple : {0L, 1L, 2L, 3L, 1000L, (INT64_MAX - 2) / divisor}) {
      for (std::int64_t offset : {-divisor / 2, divisor / 2, -2L, -1L, 0L, 1L, 2L}) {
        if (multiple != 0 && divisor > (INT64_MAX - 2) / multiple) continue;
        const std::int64_t start = multiple * divisor;
        if (offset > 0 && start > INT64_MAX - offset) continue;
        compare_division(start + offset, divisor);
        compare_division(-(start + offset), divisor);
      }
    }
  }
}

TEST(companions_of_small_moduli_are_those_of_the_division) {
  for (std::uint32_t q = 3; q < 400; ++q) {
    for (std::uint32_t w = 0; w < q; ++w) {
      compare<std::uint32_t>(w, q);
      compare<std::uint64_t>(w, q);
    }
  }
}

TEST(companions_of_large_moduli_are_those_of_the_division) {
  for (std::uint32_t q : {12289u, 2147352577u, 2147377153u, 2147389441u, 0x7fffffffu}) compare_many<std::uint32_t>(q);
  const std::uint64_t largest = (std::uint64_t{1} << 60) - 1;
  for (std::uint64_t q : {std::uint64_t{2147389441}, std::uint64_t{1125899906826241}, largest - 92, largest}) {
    compare_many<std::uint64_t>(q);
  }
}
