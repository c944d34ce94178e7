// Streams and samplers of the contract, sixteen lanes at a time.
#pragma once

#include "kernels/avx512/vaes.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

// One private stream key, made ready once for many reads.
class PrivateWords {
 public:
  explicit PrivateWords(PrivateStream source);

  PrivateStream source() const { return source_; }
  // Words [first, first + count) of the stream.
  void read(std::uint32_t selector, std::uint64_t block, std::uint64_t first, std::size_t count,
            std::uint32_t* out) const;

 private:
  PrivateStream source_;
  Aes256KeyPointer aes_;  // null where the stream is not computed by VAES
};

void ternary(const PrivateWords& words, Lane lane, std::uint64_t block, std::size_t count, std::int32_t* out);

// The entries of the kernel table.
void stream(PrivateStream source, std::uint32_t selector, std::uint64_t block, std::uint64_t first, std::size_t count,
            std::uint32_t* out);
void gaussian(const GaussianTable& table, PrivateStream source, Lane lane, std::uint64_t block, std::size_t count,
              std::int32_t* out);
void ternary(PrivateStream source, Lane lane, std::uint64_t block, std::size_t count, std::int32_t* out);

}  // namespace pppml::kernels::avx512
