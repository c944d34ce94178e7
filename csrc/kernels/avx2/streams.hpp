// Streams and samplers of the contract, eight lanes at a time.
#pragma once

#include <optional>

#include "kernels/avx2/aes256.hpp"
#include "kernels/avx2/gaussian.hpp"
#include "kernels/avx2/transform.hpp"

namespace pppml::kernels::avx2 {

// A private stream with what its cipher keeps per key.
class NoiseSource {
 public:
  explicit NoiseSource(PrivateStream source);

  PrivateStream stream() const { return stream_; }

  // Words [first, first + count); fast where both are multiples of kBatchWords.
  void read(std::uint32_t selector, std::uint64_t block, std::uint64_t first, std::size_t count,
            std::uint32_t* out) const;

  // What KernelTable::ternary returns.
  void ternary(Lane lane, std::uint64_t block, std::size_t count, std::int32_t* out) const;

 private:
  PrivateStream stream_;
  std::optional<Aes256> aes_;
};

class GaussianSampler {
 public:
  explicit GaussianSampler(const GaussianTable& table) : table_(table), buckets_(table) {}

  // What KernelTable::gaussian returns.
  void sample_row(const NoiseSource& noise, Lane lane, std::uint64_t block, std::size_t count, std::int32_t* out) const;

 private:
  const GaussianTable& table_;
  BucketTable buckets_;
};

// Residues of a uniform row (KernelTable::uniform), one batch at a time and in column order.
class UniformRow {
 public:
  UniformRow(const Prime32& prime, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
             std::uint64_t block);

  // The 128 residues of a chunk.
  void expand(std::size_t chunk, Word* columns) const;

 private:
  Word replacement(std::size_t k) const;

  const Prime32& prime_;
  std::size_t degree_;
  const std::uint8_t* key_;
  std::uint32_t selector_;
  std::uint64_t block_;
  ChaCha20 cipher_;
};

// The functions of the contract's table.
void stream(PrivateStream source, std::uint32_t selector, std::uint64_t block, std::uint64_t first, std::size_t count,
            std::uint32_t* out);
void uniform(const Prime32& prime, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
             std::uint64_t block, Word* out);
void gaussian(const GaussianTable& table, PrivateStream source, Lane lane, std::uint64_t block, std::size_t count,
              std::int32_t* out);
void ternary(PrivateStream source, Lane lane, std::uint64_t block, std::size_t count, std::int32_t* out);

}  // namespace pppml::kernels::avx2
