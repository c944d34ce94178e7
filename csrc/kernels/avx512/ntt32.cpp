#include "kernels/avx512/ntt32.hpp"

#include "kernels/avx512/butterflies.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Butterfly = void (*)(Vector&, Vector&, Vector, Vector, Vector);

// For butterflies of distance `half` < 16 within 32 residues: which residues stand left and right, and how to put
// results back. Index i < 16 means lane i of the first vector, else lane i - 16 of the second.
struct Shuffle {
  alignas(64) std::uint32_t left[16], right[16], first[16], second[16], root[16];
};

constexpr Shuffle make_shuffle(unsigned half) {
  Shuffle s{};
  std::uint32_t place[32]{};
  for (unsigned k = 0; k < 16; ++k) {
    const unsigned group = k / half, offset = k % half;
    s.left[k] = group * 2 * half + offset;
    s.right[k] = s.left[k] + half;
    s.root[k] = group;
    place[s.left[k]] = k;
    place[s.right[k]] = k + 16;
  }
  for (unsigned k = 0; k < 16; ++k) {
    s.first[k] = place[k];
    s.second[k] = place[k + 16];
  }
  return s;
}

constexpr Shuffle kShuffles[4] = {make_shuffle(1), make_shuffle(2), make_shuffle(4), make_shuffle(8)};

// One level of distance 2^level inside (a, b); the 16 >> level roots of this span start at `roots`.
template <Butterfly kButterfly>
inline void small_level(Vector& a, Vector& b, unsigned level, const std::uint32_t* roots,
                        const std::uint32_t* companions, Vector q) {
  const Shuffle& s = kShuffles[level];
  const auto mask = static_cast<__mmask16>((1u << (16 >> level)) - 1);
  const Vector where = load(s.root);
  const Vector w = _mm512_permutexvar_epi32(where, _mm512_maskz_loadu_epi32(mask, roots));
  const Vector companion = _mm512_permutexvar_epi32(where, _mm512_maskz_loadu_epi32(mask, companions));
  Vector left = _mm512_permutex2var_epi32(a, load(s.left), b);
  Vector right = _mm512_permutex2var_epi32(a, load(s.right), b);
  kButterfly(left, right, w, companion, q);
  a = _mm512_permutex2var_epi32(left, load(s.first), right);
  b = _mm512_permutex2var_epi32(left, load(s.second), right);
}

// All levels of distance 1 to 16, span by span of 32 residues: the inverse transform begins with them.
void inverse_small(const Prime32& prime, std::size_t degree, std::uint32_t* values, Vector q) {
  for (std::size_t start = 0; start < degree; start += 32) {
    Vector a = load(values + start), b = load(values + start + 16);
    for (unsigned level = 0; level < 4; ++level) {
      const std::size_t at = (degree >> (level + 1)) + (start >> (level + 1));
      small_level<inverse_butterfly>(a, b, level, prime.inverse_roots + at, prime.inverse_root_companions + at, q);
    }
    const std::size_t at = degree / 32 + start / 32;
    inverse_butterfly(a, b, broadcast(prime.inverse_roots[at]), broadcast(prime.inverse_root_companions[at]), q);
    store(values + start, a);
    store(values + start + 16, b);
  }
}

void forward_small(const Prime32& prime, std::size_t degree, std::uint32_t* values, Vector q) {
  for (std::size_t start = 0; start < degree; start += 32) {
    const std::size_t first = degree / 32 + start / 32;
    Vector a = load(values + start), b = load(values + start + 16);
    forward_butterfly(a, b, broadcast(prime.roots[first]), broadcast(prime.root_companions[first]), q);
    for (unsigned level = 4; level-- > 0;) {
      const std::size_t at = (degree >> (level + 1)) + (start >> (level + 1));
      small_level<forward_butterfly>(a, b, level, prime.roots + at, prime.root_companions + at, q);
    }
    store(values + start, a);
    store(values + start + 16, b);
  }
}

struct Root {
  Vector w, companion;
};

inline Root root_at(const std::uint32_t* roots, const std::uint32_t* companions, std::size_t index) {
  return {broadcast(roots[index]), broadcast(companions[index])};
}

// Levels of distance `half` and 2 * half in one pass over memory.
void inverse_double_level(const Prime32& prime, std::size_t degree, std::size_t half, std::uint32_t* values, Vector q) {
  for (std::size_t start = 0; start < degree; start += 4 * half) {
    const std::size_t inner = degree / (2 * half) + start / (2 * half),
                      outer = degree / (4 * half) + start / (4 * half);
    const Root w0 = root_at(prime.inverse_roots, prime.inverse_root_companions, inner);
    const Root w1 = root_at(prime.inverse_roots, prime.inverse_root_companions, inner + 1);
    const Root w2 = root_at(prime.inverse_roots, prime.inverse_root_companions, outer);
    for (std::size_t k = start; k < start + half; k += kLanes) {
      Vector x0 = load(values + k), x1 = load(values + k + half);
      Vector x2 = load(values + k + 2 * half), x3 = load(values + k + 3 * half);
      inverse_butterfly(x0, x1, w0.w, w0.companion, q);
      inverse_butterfly(x2, x3, w1.w, w1.companion, q);
      inverse_butterfly(x0, x2, w2.w, w2.companion, q);
      inverse_butterfly(x1, x3, w2.w, w2.companion, q);
      store(values + k, x0);
      store(values + k + half, x1);
      store(values + k + 2 * half, x2);
      store(values + k + 3 * half, x3);
    }
  }
}

void forward_double_level(const Prime32& prime, std::size_t degree, std::size_t half, std::uint32_t* values, Vector q) {
  for (std::size_t start = 0; start < degree; start += 4 * half) {
    const std::size_t inner = degree / (2 * half) + start / (2 * half),
                      outer = degree / (4 * half) + start / (4 * half);
    const Root w0 = root_at(prime.roots, prime.root_companions, inner);
    const Root w1 = root_at(prime.roots, prime.root_companions, inner + 1);
    const Root w2 = root_at(prime.roots, prime.root_companions, outer);
    for (std::size_t k = start; k < start + half; k += kLanes) {
      Vector x0 = load(values + k), x1 = load(values + k + half);
      Vector x2 = load(values + k + 2 * half), x3 = load(values + k + 3 * half);
      forward_butterfly(x0, x2, w2.w, w2.companion, q);
      forward_butterfly(x1, x3, w2.w, w2.companion, q);
      forward_butterfly(x0, x1, w0.w, w0.companion, q);
      forward_butterfly(x2, x3, w1.w, w1.companion, q);
      store(values + k, x0);
      store(values + k + half, x1);
      store(values + k + 2 * half, x2);
      store(values + k + 3 * half, x3);
    }
  }
}

template <Butterfly kButterfly>
void single_top_level(std::uint32_t root, std::uint32_t companion, std::size_t degree, std::uint32_t* values,
                      Vector q) {
  const Vector w = broadcast(root), c = broadcast(companion);
  for (std::size_t k = 0; k < degree / 2; k += kLanes) {
    Vector left = load(values + k), right = load(values + k + degree / 2);
    kButterfly(left, right, w, c, q);
    store(values + k, left);
    store(values + k + degree / 2, right);
  }
}

}  // namespace

void inverse_large(const Prime32& prime, unsigned log_degree, std::size_t half, std::uint32_t* values) {
  const std::size_t degree = std::size_t{1} << log_degree;
  const Vector q = broadcast(prime.modulus);
  for (; 4 * half <= degree; half *= 4) inverse_double_level(prime, degree, half, values, q);
  if (2 * half == degree) {
    single_top_level<inverse_butterfly>(prime.inverse_roots[1], prime.inverse_root_companions[1], degree, values, q);
  }
}

void inverse_ntt_unscaled(const Prime32& prime, unsigned log_degree, std::uint32_t* values) {
  inverse_small(prime, std::size_t{1} << log_degree, values, broadcast(prime.modulus));
  inverse_large(prime, log_degree, 32, values);
}

void forward_ntt(const Prime32& prime, unsigned log_degree, std::uint32_t* values) {
  const std::size_t degree = std::size_t{1} << log_degree;
  const Vector q = broadcast(prime.modulus);
  // The levels of distance 32 and above go in pairs from the bottom; one is left over at the top when log_degree is
  // even.
  std::size_t half = degree / 4;
  if (log_degree % 2 == 0) {
    single_top_level<forward_butterfly>(prime.roots[1], prime.root_companions[1], degree, values, q);
    half = degree / 8;
  }
  for (; half >= 32; half /= 4) forward_double_level(prime, degree, half, values, q);
  forward_small(prime, degree, values, q);
}

}  // namespace pppml::kernels::avx512
