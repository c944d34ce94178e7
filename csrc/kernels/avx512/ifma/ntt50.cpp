#include "kernels/avx512/ifma/ntt50.hpp"

#include "kernels/avx512/ifma/lanes50.hpp"

namespace pppml::kernels::avx512::ifma {
namespace {

// The roots of one direction.
struct Roots {
  const std::uint64_t* values;
  const std::uint64_t* companions;
  std::size_t degree;

  // For butterflies of distance `half` at residue `start`, a multiple of 2 half.
  Factor at(std::size_t start, std::size_t half) const {
    return factor_at(values, companions, (degree + start) / (2 * half));
  }
};

Roots forward_roots(const Prime64& prime, unsigned log_degree) {
  return {prime.roots, prime.root_companions, std::size_t{1} << log_degree};
}
Roots inverse_roots(const Prime64& prime, unsigned log_degree) {
  return {prime.inverse_roots, prime.inverse_root_companions, std::size_t{1} << log_degree};
}

// For butterflies of distance `half` < 8 within 16 residues: which residues stand left and right, and how to put
// results back. Index i < 8 means lane i of the first vector, else lane i - 8 of the second.
struct Shuffle {
  alignas(64) std::uint64_t left[8], right[8], first[8], second[8], root[8];
};

constexpr Shuffle make_shuffle(unsigned half) {
  Shuffle s{};
  std::uint64_t place[16]{};
  for (unsigned k = 0; k < 8; ++k) {
    const unsigned group = k / half, offset = k % half;
    s.left[k] = group * 2 * half + offset;
    s.right[k] = s.left[k] + half;
    s.root[k] = group;
    place[s.left[k]] = k;
    place[s.right[k]] = k + 8;
  }
  for (unsigned k = 0; k < 8; ++k) {
    s.first[k] = place[k];
    s.second[k] = place[k + 8];
  }
  return s;
}

constexpr Shuffle kShuffles[3] = {make_shuffle(1), make_shuffle(2), make_shuffle(4)};

// One level of distance 2^level < 8 inside the sixteen residues (a, b) from `start` on.
template <auto kButterfly>
inline void small_level(Vector& a, Vector& b, unsigned level, const Roots& roots, std::size_t start, const Modulus& m) {
  const Shuffle& s = kShuffles[level];
  const auto lanes = static_cast<__mmask8>((1u << (8 >> level)) - 1);
  const std::size_t at = (roots.degree + start) >> (level + 1);
  const Vector where = load(s.root);
  const Vector companion = _mm512_permutexvar_epi64(where, _mm512_maskz_loadu_epi64(lanes, roots.companions + at));
  const Factor f{_mm512_permutexvar_epi64(where, _mm512_maskz_loadu_epi64(lanes, roots.values + at)),
                 _mm512_srli_epi64(companion, kCompanionShift)};
  Vector left = _mm512_permutex2var_epi64(a, load(s.left), b);
  Vector right = _mm512_permutex2var_epi64(a, load(s.right), b);
  kButterfly(left, right, f, m);
  a = _mm512_permutex2var_epi64(left, load(s.first), right);
  b = _mm512_permutex2var_epi64(left, load(s.second), right);
}

// The levels of distance 1 to 64 of the chunk from residue `start` on.
inline void inverse_chunk(Vector* x, const Roots& roots, std::size_t start, const Modulus& m) {
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kRegisters; i += 2) {
    small_level<inverse_butterfly>(x[i], x[i + 1], 0, roots, start + kLanes * i, m);
    small_level<inverse_butterfly>(x[i], x[i + 1], 1, roots, start + kLanes * i, m);
    small_level<inverse_butterfly>(x[i], x[i + 1], 2, roots, start + kLanes * i, m);
  }
  register_level<inverse_butterfly, 1>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 8); });
  register_level<inverse_butterfly, 2>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 16); });
  register_level<inverse_butterfly, 4>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 32); });
  register_level<inverse_butterfly, 8>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 64); });
}

inline void forward_chunk(Vector* x, const Roots& roots, std::size_t start, const Modulus& m) {
  register_level<forward_butterfly, 8>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 64); });
  register_level<forward_butterfly, 4>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 32); });
  register_level<forward_butterfly, 2>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 16); });
  register_level<forward_butterfly, 1>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 8); });
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kRegisters; i += 2) {
    small_level<forward_butterfly>(x[i], x[i + 1], 2, roots, start + kLanes * i, m);
    small_level<forward_butterfly>(x[i], x[i + 1], 1, roots, start + kLanes * i, m);
    small_level<forward_butterfly>(x[i], x[i + 1], 0, roots, start + kLanes * i, m);
  }
}

// kLevels levels in one pass over memory, the smallest distance being `half`.
template <unsigned kLevels, bool kInverse>
void large_pass(const Roots& roots, std::size_t half, std::uint64_t* values, const Modulus& m) {
  constexpr std::size_t kWidth = std::size_t{1} << kLevels;
  for (std::size_t start = 0; start < roots.degree; start += kWidth * half) {
    Factor factors[kWidth];  // of the butterflies at place i, level by level: index kWidth >> level, and on
    for (unsigned level = 0; level < kLevels; ++level) {
      for (std::size_t group = 0; group < kWidth >> (level + 1); ++group) {
        const std::size_t distance = half << level;
        factors[(kWidth >> (level + 1)) + group] = roots.at(start + 2 * distance * group, distance);
      }
    }
    for (std::size_t k = start; k < start + half; k += kLanes) {
      Vector x[kWidth];
#pragma GCC unroll 8
      for (std::size_t i = 0; i < kWidth; ++i) x[i] = load(values + k + i * half);
#pragma GCC unroll 3
      for (unsigned step = 0; step < kLevels; ++step) {
        const unsigned level = kInverse ? step : kLevels - 1 - step;
        const std::size_t distance = std::size_t{1} << level;
#pragma GCC unroll 4
        for (std::size_t i = 0; i < kWidth / 2; ++i) {
          const std::size_t group = i / distance, left = 2 * distance * group + i % distance;
          const Factor& f = factors[(kWidth >> (level + 1)) + group];
          if constexpr (kInverse) {
            inverse_butterfly(x[left], x[left + distance], f, m);
          } else {
            forward_butterfly(x[left], x[left + distance], f, m);
          }
        }
      }
#pragma GCC unroll 8
      for (std::size_t i = 0; i < kWidth; ++i) store(values + k + i * half, x[i]);
    }
  }
}

// kInverse ? upwards from distance kChunk : downwards to it. Three levels a pass where more than four are left.
template <bool kInverse>
void large_levels(const Roots& roots, std::uint64_t* values, const Modulus& m) {
  const auto pass = [&](unsigned levels, std::size_t half) {
    switch (levels) {
      case 1: large_pass<1, kInverse>(roots, half, values, m); break;
      case 2: large_pass<2, kInverse>(roots, half, values, m); break;
      default: large_pass<3, kInverse>(roots, half, values, m); break;
    }
  };
  const auto take = [](unsigned left) { return left == 4 || left < 3 ? (left < 2 ? left : 2) : 3; };
  unsigned left = 0;
  while (kChunk << left < roots.degree) ++left;
  for (unsigned done = 0; left > 0;) {
    const unsigned levels = take(left);
    left -= levels;
    pass(levels, kInverse ? kChunk << done : kChunk << left);
    done += levels;
  }
}

}  // namespace

void inverse_large(const Prime64& prime, unsigned log_degree, std::uint64_t* values) {
  large_levels<true>(inverse_roots(prime, log_degree), values, Modulus(prime.modulus));
}

void multiply_and_invert(const Prime64& prime, unsigned log_degree, const Multiplier<std::uint64_t>& factor,
                         std::uint64_t* values) {
  const Roots roots = inverse_roots(prime, log_degree);
  const Modulus m(prime.modulus);
  for (std::size_t start = 0; start < roots.degree; start += kChunk) {
    Vector x[kRegisters];
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kRegisters; ++i) {
      const std::size_t at = start + kLanes * i;
      x[i] = multiply_lazy(load(values + at), {load(factor.values + at), load_companion(factor.companions + at)}, m);
    }
    inverse_chunk(x, roots, start, m);
    store_chunk(x, values + start);
  }
  large_levels<true>(roots, values, m);
}

void inverse_ntt(const Prime64& prime, unsigned log_degree, std::uint64_t* values) {
  const Roots roots = inverse_roots(prime, log_degree);
  const Modulus m(prime.modulus);
  for (std::size_t start = 0; start < roots.degree; start += kChunk) {
    Vector x[kRegisters];
    load_chunk(values + start, x);
    inverse_chunk(x, roots, start, m);
    store_chunk(x, values + start);
  }
  large_levels<true>(roots, values, m);
  const Factor scale = factor_at(&prime.inverse_degree, &prime.inverse_degree_companion, 0);
  for (std::size_t k = 0; k < roots.degree; k += kLanes) {
    store(values + k, reduce_once(multiply_lazy(load(values + k), scale, m), m.q));
  }
}

void forward_ntt(const Prime64& prime, unsigned log_degree, std::uint64_t* values) {
  const Roots roots = forward_roots(prime, log_degree);
  const Modulus m(prime.modulus);
  large_levels<false>(roots, values, m);
  for (std::size_t start = 0; start < roots.degree; start += kChunk) {
    Vector x[kRegisters];
    load_chunk(values + start, x);
    forward_chunk(x, roots, start, m);
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kRegisters; ++i) {
      store(values + start + kLanes * i, reduce_once(reduce_once(x[i], m.twice), m.q));
    }
  }
}

}  // namespace pppml::kernels::avx512::ifma
