// What the kernels of a device are given: plain values and pointers into its memory.
//
// The fused operations are those of contract.hpp, to the same bits; what differs is where things lie. A *shape* fixes
// at compile time what the loops and the shared memory depend on.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/contract.hpp"
#include "kernels/cuda/group.hpp"

namespace pppml::kernels::cuda {

// Rings that there are kernels for: word width, log2 of the degree, number of primes.
template <class AnyWord, unsigned kLog, unsigned kCount>
struct Shape {
  using Word = AnyWord;
  static constexpr bool kNarrow = sizeof(Word) == 4;
  static constexpr unsigned kLogDegree = kLog, kDegree = 1u << kLog, kPrimes = kCount;
  static constexpr unsigned kPerThread = 8;  // residues that a thread holds: three levels of a transform
  static constexpr unsigned kThreads = kDegree / kPerThread;
  static constexpr unsigned kBlockWords = kPrimes * kDegree;
};
using P31 = Shape<std::uint32_t, 11, 1>;
using P50 = Shape<std::uint64_t, 12, 1>;
using P62 = Shape<std::uint32_t, 12, 2>;
using Compact = Shape<std::uint64_t, 11, 1>;

// A constant factor w with floor(w 2^bits / q), side by side: one load brings both.
template <class Word>
struct alignas(2 * sizeof(Word)) Factor {
  Word value, companion;
};

// As PrimeTable.
template <class Word>
struct DevicePrime {
  Word modulus;
  unsigned bits;
  std::uint64_t ratio, lift;
  const Factor<Word>* roots;
  const Factor<Word>* inverse_roots;
};

template <class Shape>
struct DeviceRing {
  using Word = typename Shape::Word;
  DevicePrime<Word> primes[Shape::kPrimes];
  Factor<Word> garner;  // q0^-1 mod q1, where there are two
};

struct DeviceKey {
  std::uint32_t words[kStreamKeyBytes / 4];
};

// Elements of the flat vector from `offset` to the offset of the span that follows. A list of `count` spans ends with
// one more, of which the offset alone counts: the length of the vector. No span is empty.
struct DeviceSpan {
  void* data;
  std::uint64_t offset;
  Dtype dtype;
};
struct DeviceTensors {
  const DeviceSpan* spans = nullptr;
  std::uint32_t count = 0;
};

// The discrete Gaussian as a look-up (samplers.hpp), and as GaussianTable has it, for ties.
struct DeviceGaussian {
  static constexpr unsigned kBuckets = 128;
  const std::uint32_t* thresholds;  // kBuckets of them
  const std::uint32_t* bases;       // kBuckets bytes, four to a word
  unsigned largest;
  const std::uint32_t* high;
  const std::uint64_t* low;
};

// Counts of one operation, brought together from all blocks. `refused` and `invalid_residue` void its result.
struct DeviceReport {
  std::uint64_t clipped;
  std::uint64_t first_non_finite;  // UINT64_MAX where all were finite
  std::uint64_t invalid_residues;
  std::uint64_t largest_residual;
  std::uint64_t worst_block;  // UINT64_MAX where none was refused

  PPPML_HD bool refuses() const {
    return first_non_finite != UINT64_MAX || invalid_residues != 0 || worst_block != UINT64_MAX;
  }
};
constexpr DeviceReport kCleanReport = {0, UINT64_MAX, 0, 0, UINT64_MAX};

// As EncryptRequest's PadRequest and MessageRequest together: the mode of secret and collective keys.
template <class Shape>
struct EncryptRequest {
  using Word = typename Shape::Word;
  DeviceRing<Shape> ring;
  Batch batch;
  const Factor<Word>* secret;  // kBlockWords of them, N^-1 included
  DeviceKey public_key;
  const DeviceKey* noise_key;  // in memory that is wiped
  DeviceGaussian error;
  Codec codec;
  DeviceTensors tensors, reference;
  const std::uint8_t* incoming;  // packed, or null
  RowsOut<Word> out;
  DeviceReport* report;
};

// As PublicEncryptRequest.
template <class Shape>
struct PublicRequest {
  using Word = typename Shape::Word;
  EncryptRequest<Shape> message;  // its secret is pk0; no public_key
  const Factor<Word>* public1;
  RowsOut<Word> out1;
};

// As OpenTarget, but for the places: int64 from `integers` on, or spans of floats.
struct DeviceTarget {
  unsigned values_per_coefficient;
  std::int64_t base, half;
  double step, divisor;  // what is stored is integer * step / divisor, each rounded once
  std::uint64_t count;   // of the values from the first block of the batch on
  std::int64_t* integers;
  DeviceTensors spans;  // offsets count from the start of the whole vector
};

// As OpenRequest.
template <class Shape>
struct OpenRequest {
  using Word = typename Shape::Word;
  DeviceRing<Shape> ring;
  Batch batch;
  RowsIn<Word> c0, c1;
  DeviceKey public_key;
  const Factor<Word>* secret;
  std::int64_t delta;
  double full_limit, last_limit;  // residual_limit of a full block and of the last one
  DeviceTarget out;
  DeviceReport* report;
};

// out = sum of `count` rows of words, residue by residue.
template <class Shape>
struct SumRequest {
  using Word = typename Shape::Word;
  static constexpr unsigned kMost = 16;  // of one launch; more are added in several
  DeviceRing<Shape> ring;
  Batch batch;
  const Word* inputs[kMost];
  unsigned count;
  Word* out;
};

// Rows from words to packed bytes, back, or both with an addition: out = in + mine. Each is one of RowsIn and RowsOut.
template <class Shape>
struct MoveRequest {
  using Word = typename Shape::Word;
  DeviceRing<Shape> ring;
  Batch batch;
  RowsIn<Word> in;
  const Word* mine;  // or null
  RowsOut<Word> out;
  DeviceReport* report;
};

// Zeroes `bytes` at `data`, and what the spans cover, where a report refuses.
struct WipeRequest {
  const DeviceReport* report;
  std::uint8_t* data;
  std::uint64_t bytes;
  DeviceTensors spans;
};

}  // namespace pppml::kernels::cuda
