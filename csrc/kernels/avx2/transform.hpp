// Negacyclic NTT of 32-bit words between coefficients and NTT form in column order.
//
// In column order every chunk of 128 residues stands as the 16 x 8 matrix of chacha20.hpp: entry 8 w + l is residue
// 16 l + w. The levels of distance 1 to 8 then pair whole vectors; those of distance 16 to 64 do after a transposition.
// Factors are kept in column order too, and the stream that a_j expands from comes in it.
#pragma once

#include "base/buffer.hpp"
#include "kernels/avx2/chacha20.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx2 {

using Word = std::uint32_t;
using Prime32 = PrimeTable<Word>;
using Ring32 = RingTable<Word>;

constexpr unsigned kSmallestLogDegree = 7;  // one chunk

// A constant polynomial in NTT form and column order.
class ColumnFactor {
 public:
  // Row l of a multiplier.
  ColumnFactor(const Ring32& ring, std::size_t l, const Multiplier<Word>& multiplier);
  // The same value everywhere.
  ColumnFactor(std::size_t degree, Word value, Word companion);

  Factor at(std::size_t k) const { return load_factor(values_.data() + k, companions_.data() + k); }

 private:
  SecretBuffer<Word> values_, companions_;
};

// The roots of one direction of the transform, for N >= 128; the prime's table must outlive them.
class ColumnRoots {
 public:
  enum class Direction : std::uint8_t { kForward, kInverse };

  ColumnRoots(const Prime32& prime, unsigned log_degree, Direction direction);

  unsigned log_degree() const { return log_degree_; }
  std::size_t degree() const { return std::size_t{1} << log_degree_; }
  Vector modulus() const { return broadcast(prime_.modulus); }

  // The root of one group: with G groups in its level, group g has index G + g.
  Factor at(std::size_t index) const { return broadcast_factor(roots_[index], companions_[index]); }

  // The roots of the butterfly between vectors w and w + 2^level of a chunk in column order.
  Factor between(std::size_t chunk, unsigned level, std::size_t w) const {
    constexpr std::size_t kFirst[4] = {0, 8, 12, 14};
    const LaneRoots& r = lane_roots_[chunk * kLaneRoots + kFirst[level] + (w >> (level + 1))];
    return load_factor(r.roots, r.companions);
  }

 private:
  struct LaneRoots {
    alignas(32) Word roots[kLanes];
    alignas(32) Word companions[kLanes];
  };
  static constexpr std::size_t kLaneRoots = 15;  // of a chunk: 8 + 4 + 2 + 1 for levels 0 to 3

  const Prime32& prime_;
  unsigned log_degree_;
  const Word* roots_;
  const Word* companions_;
  Buffer<LaneRoots> lane_roots_;
};

// N coefficients below q, in place -> NTT form in column order.
void forward_to_columns(const ColumnRoots& roots, Word* row);

// in * factor, in column order -> N times its coefficients. `scratch` holds a chunk.
void multiply_and_invert(const ColumnRoots& roots, const ColumnFactor& factor, const Word* in, Word* scratch,
                         Word* out);

// The two parts of it, for callers that make `in` chunk by chunk: the levels inside a chunk, whose 128 words `in`
// (which may be `scratch`) become `out`; then, over the whole row, the levels above.
void multiply_and_invert_chunk(const ColumnRoots& roots, const ColumnFactor& factor, std::size_t chunk, const Word* in,
                               Word* scratch, Word* out);
void invert_above_chunks(const ColumnRoots& roots, Word* row);

}  // namespace pppml::kernels::avx2
