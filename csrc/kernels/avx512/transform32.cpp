#include "kernels/avx512/transform32.hpp"

#include <algorithm>

#include "base/modular.hpp"

namespace pppml::kernels::avx512 {
namespace {

// One pass over memory: levels among kCount vectors `stride` apart, within every group of kCount * stride residues.
template <int kCount>
void forward_pass(const Prime32& prime, std::size_t degree, std::size_t stride, std::uint32_t* row) {
  const Vector q = broadcast(prime.modulus);
  const std::size_t span = kCount * stride;
  for (std::size_t start = 0; start < degree; start += span) {
    const std::size_t first = (degree + start) / stride;
    const auto roots = [&](std::size_t half) {
      return [&prime, first, half](int i) {
        const std::size_t group = (first + static_cast<std::size_t>(i)) / (2 * half);
        return detail::root_at(prime.roots, prime.root_companions, group);
      };
    };
    for (std::size_t k = start; k < start + stride; k += kLanes) {
      Vector x[kCount];
#pragma GCC unroll 8
      for (std::size_t i = 0; i < kCount; ++i) x[i] = load(row + i * stride + k);
      if constexpr (kCount > 4) forward_level<kCount, 4>(x, q, roots(4));
      if constexpr (kCount > 2) forward_level<kCount, 2>(x, q, roots(2));
      forward_level<kCount, 1>(x, q, roots(1));
#pragma GCC unroll 8
      for (std::size_t i = 0; i < kCount; ++i) store(row + i * stride + k, x[i]);
    }
  }
}

}  // namespace

// The butterfly of distance h between vectors w and w + h takes, in lane l, the root of group (256 c + 16 l + w) / 2h.
LaneRoots::LaneRoots(const std::uint32_t* roots, const std::uint32_t* companions, std::size_t degree)
    : roots_(degree / kChunk * kRoots + 1) {
  const Vector lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  Root* out = roots_.data();
  for (std::size_t chunk = 0; chunk < degree / kChunk; ++chunk) {
    for (unsigned level = 0; level < 4; ++level) {
      const Vector index = _mm512_slli_epi32(lanes, 3 - level);
      for (std::size_t w = 0; w < kLanes; w += std::size_t{2} << level, ++out) {
        const std::size_t at = (degree + chunk * kChunk + w) >> (level + 1);
        store(out->values, _mm512_i32gather_epi32(index, roots + at, 4));
        store(out->companions, _mm512_i32gather_epi32(index, companions + at, 4));
      }
    }
  }
}

ColumnFactor::ColumnFactor(const Prime32& prime, std::size_t degree, const std::uint32_t* values,
                           const std::uint32_t* companions, bool negative)
    : values_(degree), companions_(degree + kLanes) {
  const Vector q = broadcast(prime.modulus), ones = broadcast(~std::uint32_t{0});
  const Vector lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (std::size_t chunk = 0; chunk < degree; chunk += kChunk) {
    Vector v[kLanes], c[kLanes];
    for (std::size_t i = 0; i < kLanes; ++i) {
      const std::size_t k = chunk + kLanes * i;
      Vector parity = _mm512_or_si512(lanes, broadcast(static_cast<std::uint32_t>(k)));
      for (unsigned shift : {8, 4, 2, 1}) parity = _mm512_xor_si512(parity, _mm512_srli_epi32(parity, shift));
      const __mmask16 odd = _mm512_test_epi32_mask(parity, broadcast(1));
      const auto minus = static_cast<__mmask16>(negative ? ~odd : odd);
      // The companion of q - w is 2^32 - 1 minus that of w; for w = 0 the pair stands for q, and products still reduce
      // to zero.
      v[i] = _mm512_mask_sub_epi32(load(values + k), minus, q, load(values + k));
      c[i] = _mm512_mask_sub_epi32(load(companions + k), minus, ones, load(companions + k));
    }
    transpose(v);
    transpose(c);
    for (std::size_t i = 0; i < kLanes; ++i) {
      store(values_.data() + chunk + kLanes * i, v[i]);
      store(companions_.data() + chunk + kLanes * i, c[i]);
    }
  }
}

Transform32::Transform32(const Prime32& prime, unsigned log_degree)
    : prime_(prime),
      degree_(std::size_t{1} << log_degree),
      inverse_lanes_(prime.inverse_roots, prime.inverse_root_companions, degree_),
      forward_lanes_(prime.roots, prime.root_companions, degree_) {}

void Transform32::inverse_double_level(std::size_t stride, std::uint32_t* row) const {
  const Vector q = broadcast(prime_.modulus);
  for (std::size_t start = 0; start < degree_; start += 4 * stride) {
    const std::size_t first = (degree_ + start) / stride;
    const auto roots = [&](std::size_t half) {
      return [this, first, half](int i) {
        const std::size_t group = (first + static_cast<std::size_t>(i)) / (2 * half);
        return detail::root_at(prime_.inverse_roots, prime_.inverse_root_companions, group);
      };
    };
    for (std::size_t k = start; k < start + stride; k += kLanes) {
      Vector x[4];
#pragma GCC unroll 4
      for (std::size_t i = 0; i < 4; ++i) x[i] = load(row + i * stride + k);
      inverse_level<4, 1>(x, q, roots(1));
      inverse_level<4, 2>(x, q, roots(2));
#pragma GCC unroll 4
      for (std::size_t i = 0; i < 4; ++i) store(row + i * stride + k, x[i]);
    }
  }
}

// Distances N / 2 to 256.
void Transform32::forward_first(std::uint32_t* row) const {
  std::size_t stride = degree_;
  while (stride > kChunk) {
    switch (std::min<std::size_t>(stride / kChunk, 8)) {
      case 2: forward_pass<2>(prime_, degree_, stride /= 2, row); break;
      case 4: forward_pass<4>(prime_, degree_, stride /= 4, row); break;
      default: forward_pass<8>(prime_, degree_, stride /= 8, row); break;
    }
  }
}

void inverse_ntt(const Prime32& prime, unsigned log_degree, std::uint32_t* values) {
  const Transform32 transform(prime, log_degree);
  const std::size_t degree = transform.degree();
  Buffer<std::uint32_t> factors(degree), companions(degree);
  std::fill(factors.begin(), factors.end(), prime.inverse_degree);
  std::fill(companions.begin(), companions.end(), prime.inverse_degree_companion);
  const ColumnFactor factor(prime, degree, factors.data(), companions.data(), false);
  SecretBuffer<std::uint32_t> row(degree);
  transform.inverse(factor, RowColumns(values), row.data(), [&](std::size_t k, Vector v) { store(values + k, v); });
}

void forward_ntt(const Prime32& prime, unsigned log_degree, std::uint32_t* values) {
  const Transform32 transform(prime, log_degree);
  transform.forward_first(values);
  for (std::size_t chunk = 0; chunk < transform.chunks(); ++chunk) {
    Vector x[kLanes];
    transform.forward_columns(chunk, values, x);
    transpose(x);
    for (std::size_t i = 0; i < kLanes; ++i) store(values + chunk * kChunk + kLanes * i, x[i]);
  }
}

}  // namespace pppml::kernels::avx512
