// The two negacyclic transforms on 32-bit words, cut so that most levels run in registers.
//
// Residues go through the registers in chunks of 256, sixteen vectors at a time. In *columns*, lane l of vector w holds
// residue 16 l + w of the chunk: levels of distance 1 to 8 pair whole vectors. One transposition gives *rows*, where
// those of distance 16 to 128 do. ChaCha20 makes columns by itself. The few levels of distance 256 and more are one
// pass over memory, whose results are handed on while they are in registers.
#pragma once

#include "base/buffer.hpp"
#include "kernels/avx512/butterflies.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

using Prime32 = PrimeTable<std::uint32_t>;

constexpr std::size_t kChunk = 256;
constexpr unsigned kSmallestLogDegree = 8;

// Roots for the levels inside the sixteen residues of a lane; those differ from lane to lane.
class LaneRoots {
 public:
  LaneRoots(const std::uint32_t* roots, const std::uint32_t* companions, std::size_t degree);

  // That of the butterflies of distance kHalf whose group begins at vector w of a chunk.
  template <int kHalf>
  Factor at(std::size_t chunk, int w) const {
    constexpr std::size_t kBefore = kHalf == 1 ? 0 : kHalf == 2 ? 8 : kHalf == 4 ? 12 : 14;
    const Root& root = roots_[chunk * kRoots + kBefore + static_cast<std::size_t>(w / (2 * kHalf))];
    return {load(root.values), load(root.companions), load(root.companions + 1)};
  }

 private:
  static constexpr std::size_t kRoots = 15;  // 8 + 4 + 2 + 1 vectors for distances 1, 2, 4, 8
  struct Root {
    std::uint32_t values[kLanes];
    std::uint32_t companions[kLanes];
  };
  Buffer<Root> roots_;  // one more than are used, so that every companion has a right neighbour
};

// A row of residues in NTT form as a factor of what goes into an inverse transform: in columns, with the signs that its
// butterflies expect.
class ColumnFactor {
 public:
  // `values` and companions: N words; negative: minus the row
  ColumnFactor(const Prime32& prime, std::size_t degree, const std::uint32_t* values, const std::uint32_t* companions,
               bool negative);

  Factor at(std::size_t chunk, std::size_t w) const {
    const std::size_t k = chunk * kChunk + w * kLanes;
    return {load(values_.data() + k), load(companions_.data() + k), load(companions_.data() + k + 1)};
  }

 private:
  SecretBuffer<std::uint32_t> values_, companions_;
};

namespace detail {

inline Factor root_at(const std::uint32_t* roots, const std::uint32_t* companions, std::size_t index) {
  return broadcast_factor(roots[index], companions[index]);
}

// The levels of distance stride .. kCount / 2 * stride of the inverse transform of kCount * stride residues:
// sink(k, residues k .. k + 15) for every k in steps of sixteen.
template <int kCount, class Sink>
__attribute__((noinline)) void inverse_last(const Prime32& prime, std::size_t stride, const std::uint32_t* row,
                                            Sink& sink) {
  const Vector q = broadcast(prime.modulus);
  const auto roots = [&](int half) {
    return [&prime, half](int i) {
      const auto group = static_cast<std::size_t>((kCount + i) / (2 * half));
      return root_at(prime.inverse_roots, prime.inverse_root_companions, group);
    };
  };
  for (std::size_t k = 0; k < stride; k += kLanes) {
    Vector x[kCount];
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) x[i] = load(row + static_cast<std::size_t>(i) * stride + k);
    if constexpr (kCount > 1) inverse_level<kCount, 1>(x, q, roots(1));
    if constexpr (kCount > 2) inverse_level<kCount, 2>(x, q, roots(2));
    if constexpr (kCount > 4) inverse_level<kCount, 4>(x, q, roots(4));
    if constexpr (kCount > 8) inverse_level<kCount, 8>(x, q, roots(8));
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) sink(static_cast<std::size_t>(i) * stride + k, x[i]);
  }
}

}  // namespace detail

class Transform32 {
 public:
  // N = 2^log_degree, log_degree at least kSmallestLogDegree. The prime must outlive it.
  Transform32(const Prime32& prime, unsigned log_degree);

  std::size_t degree() const { return degree_; }
  std::size_t chunks() const { return degree_ / kChunk; }

  // N times the inverse transform of source * factor. source(chunk, x) gives the sixteen columns of a chunk, any 32-bit
  // words; sink(k, v) takes residues k .. k + 15 in [0, q), for every k once. `row` has room for N words.
  template <class Source, class Sink>
  void inverse(const ColumnFactor& factor, Source&& source, std::uint32_t* row, Sink&& sink) const {
    for (std::size_t chunk = 0; chunk < chunks(); ++chunk) inverse_chunk(factor, source, chunk, row + chunk * kChunk);
    std::size_t stride = kChunk;
    for (; degree_ / stride > 16; stride *= 4) inverse_double_level(stride, row);
    switch (degree_ / stride) {
      case 1: return detail::inverse_last<1>(prime_, stride, row, sink);
      case 2: return detail::inverse_last<2>(prime_, stride, row, sink);
      case 4: return detail::inverse_last<4>(prime_, stride, row, sink);
      case 8: return detail::inverse_last<8>(prime_, stride, row, sink);
      default: return detail::inverse_last<16>(prime_, stride, row, sink);
    }
  }

  // The forward transform of a row of residues, in two steps: the first works on the whole row, in place; the second
  // gives the columns of one of its chunks.
  void forward_first(std::uint32_t* row) const;
  __attribute__((always_inline)) void forward_columns(std::size_t chunk, const std::uint32_t* row, Vector* x) const {
    const Vector q = broadcast(prime_.modulus);
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kLanes; ++i) x[i] = load(row + chunk * kChunk + kLanes * i);
    const auto roots = [&](std::size_t half) {
      return [this, chunk, half](int i) {
        const std::size_t group = (degree_ / kLanes + chunk * kLanes + static_cast<std::size_t>(i)) / (2 * half);
        return detail::root_at(prime_.roots, prime_.root_companions, group);
      };
    };
    forward_level<16, 8>(x, q, roots(8));
    forward_level<16, 4>(x, q, roots(4));
    forward_level<16, 2>(x, q, roots(2));
    forward_level<16, 1>(x, q, roots(1));
    transpose(x);
    forward_level<16, 8>(x, q, [&](int w) { return forward_lanes_.at<8>(chunk, w); });
    forward_level<16, 4>(x, q, [&](int w) { return forward_lanes_.at<4>(chunk, w); });
    forward_level<16, 2>(x, q, [&](int w) { return forward_lanes_.at<2>(chunk, w); });
    forward_level<16, 1>(x, q, [&](int w) { return forward_lanes_.at<1>(chunk, w); });
  }

 private:
  template <class Source>
  __attribute__((noinline)) void inverse_chunk(const ColumnFactor& factor, Source& source, std::size_t chunk,
                                               std::uint32_t* out) const {
    const Vector q = broadcast(prime_.modulus);
    Vector x[kLanes];
    source(chunk, x);
#pragma GCC unroll 16
    for (std::size_t w = 0; w < kLanes; ++w) x[w] = multiply_shoup(x[w], factor.at(chunk, w), q);
    inverse_level<16, 1>(x, q, [&](int w) { return inverse_lanes_.at<1>(chunk, w); });
    inverse_level<16, 2>(x, q, [&](int w) { return inverse_lanes_.at<2>(chunk, w); });
    inverse_level<16, 4>(x, q, [&](int w) { return inverse_lanes_.at<4>(chunk, w); });
    inverse_level<16, 8>(x, q, [&](int w) { return inverse_lanes_.at<8>(chunk, w); });
    transpose(x);
    const auto roots = [&](std::size_t half) {
      return [this, chunk, half](int i) {
        const std::size_t group = (degree_ / kLanes + chunk * kLanes + static_cast<std::size_t>(i)) / (2 * half);
        return detail::root_at(prime_.inverse_roots, prime_.inverse_root_companions, group);
      };
    };
    inverse_level<16, 1>(x, q, roots(1));
    inverse_level<16, 2>(x, q, roots(2));
    inverse_level<16, 4>(x, q, roots(4));
    inverse_level<16, 8>(x, q, roots(8));
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kLanes; ++i) store(out + kLanes * i, x[i]);
  }

  // Distances stride and 2 * stride of the inverse transform.
  void inverse_double_level(std::size_t stride, std::uint32_t* row) const;

  const Prime32& prime_;
  std::size_t degree_;
  LaneRoots inverse_lanes_, forward_lanes_;
};

// Columns of the chunks of a row in memory.
class RowColumns {
 public:
  explicit RowColumns(const std::uint32_t* row) : row_(row) {}

  void operator()(std::size_t chunk, Vector* x) const {
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kLanes; ++i) x[i] = load(row_ + chunk * kChunk + kLanes * i);
    transpose(x);
  }

 private:
  const std::uint32_t* row_;
};

// The whole transforms, in place, values in [0, q) in the order of the contract.
void inverse_ntt(const Prime32& prime, unsigned log_degree, std::uint32_t* values);
void forward_ntt(const Prime32& prime, unsigned log_degree, std::uint32_t* values);

// Chunks that the transforms of one block go through.
inline std::size_t block_chunks(const RingTable<std::uint32_t>& ring) {
  return ring.block_words() / kChunk;
}

}  // namespace pppml::kernels::avx512
