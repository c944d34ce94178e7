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

// Entries 2 i and 2 i + 1 of the sixteen in (a, b).
struct Parts {
  Vector even, odd;
};
inline Parts part(Vector a, Vector b) {
  const Vector even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), odd = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
  return {_mm512_permutex2var_epi64(a, even, b), _mm512_permutex2var_epi64(a, odd, b)};
}

// Lane p of out[g] becomes entry kCount p + g.
template <std::size_t kCount>
inline void load_strided(const std::uint64_t* in, Vector* out) {
  if constexpr (kCount == 1) {
    out[0] = load(in);
  } else if constexpr (kCount == 2) {
    const Parts all = part(load(in), load(in + 8));
    out[0] = all.even, out[1] = all.odd;
  } else {
    static_assert(kCount == 4);
    const Parts low = part(load(in), load(in + 8)), high = part(load(in + 16), load(in + 24));
    const Parts even = part(low.even, high.even), odd = part(low.odd, high.odd);
    out[0] = even.even, out[1] = odd.even, out[2] = even.odd, out[3] = odd.odd;
  }
}

// One level of distance kHalf < 8 of 64 residues from `start` on, transposed: lane p of x[j] is residue 8 p + j of
// them.
template <auto kButterfly, std::size_t kHalf>
inline void lane_level(Vector* x, const Roots& roots, std::size_t start, const Modulus& m) {
  constexpr std::size_t kGroups = 4 / kHalf;
  const std::size_t at = (roots.degree + start) / (2 * kHalf);
  Vector w[kGroups], companions[kGroups];
  load_strided<kGroups>(roots.values + at, w);
  load_strided<kGroups>(roots.companions + at, companions);
#pragma GCC unroll 4
  for (std::size_t g = 0; g < kGroups; ++g) {
    const Factor f{w[g], _mm512_srli_epi64(companions[g], kCompanionShift)};
#pragma GCC unroll 4
    for (std::size_t k = 2 * kHalf * g; k < 2 * kHalf * g + kHalf; ++k) kButterfly(x[k], x[k + kHalf], f, m);
  }
}

// The levels of distance 1 to 64 of the chunk from residue `start` on. Out of line, every level would pass through
// memory.
[[gnu::always_inline]] inline void inverse_chunk(Vector* x, const Roots& roots, std::size_t start, const Modulus& m) {
#pragma GCC unroll 2
  for (std::size_t i = 0; i < kRegisters; i += 8) {
    transpose(x + i);
    lane_level<inverse_butterfly, 1>(x + i, roots, start + kLanes * i, m);
    lane_level<inverse_butterfly, 2>(x + i, roots, start + kLanes * i, m);
    lane_level<inverse_butterfly, 4>(x + i, roots, start + kLanes * i, m);
    transpose(x + i);
  }
  register_level<inverse_butterfly, 1>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 8); });
  register_level<inverse_butterfly, 2>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 16); });
  register_level<inverse_butterfly, 4>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 32); });
  register_level<inverse_butterfly, 8>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 64); });
}

[[gnu::always_inline]] inline void forward_chunk(Vector* x, const Roots& roots, std::size_t start, const Modulus& m) {
  register_level<forward_butterfly, 8>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 64); });
  register_level<forward_butterfly, 4>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 32); });
  register_level<forward_butterfly, 2>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 16); });
  register_level<forward_butterfly, 1>(x, m, [&](std::size_t i) { return roots.at(start + kLanes * i, 8); });
#pragma GCC unroll 2
  for (std::size_t i = 0; i < kRegisters; i += 8) {
    transpose(x + i);
    lane_level<forward_butterfly, 4>(x + i, roots, start + kLanes * i, m);
    lane_level<forward_butterfly, 2>(x + i, roots, start + kLanes * i, m);
    lane_level<forward_butterfly, 1>(x + i, roots, start + kLanes * i, m);
    transpose(x + i);
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

void multiply_add(const Prime64& prime, std::uint64_t w, std::uint64_t companion, std::size_t count,
                  const std::uint64_t* in, std::uint64_t* out) {
  const Modulus m(prime.modulus);
  const Factor f = factor_at(&w, &companion, 0);
  for (std::size_t k = 0; k < count; k += kLanes) {
    const auto lanes = static_cast<__mmask8>(count - k < kLanes ? (1u << (count - k)) - 1 : 0xff);
    const Vector product = multiply_lazy(_mm512_maskz_loadu_epi64(lanes, in + k), f, m);
    const Vector sum = _mm512_add_epi64(product, _mm512_maskz_loadu_epi64(lanes, out + k));
    _mm512_mask_storeu_epi64(out + k, lanes, reduce_once(reduce_once(sum, m.twice), m.q));
  }
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
