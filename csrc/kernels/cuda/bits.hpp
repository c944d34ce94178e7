// Packed rows: residues of any width read from bytes, and words of bytes put together from residues.
#pragma once

#include "kernels/cuda/requests.hpp"

namespace pppml::kernels::cuda {

PPPML_HD std::uint64_t packed_bytes(unsigned bits, std::uint64_t count) {
  return (count * bits + 7) / 8;
}

// Where row l of block b of a batch begins, in words or packed bytes, and how many residues it has.
template <class Shape>
class RowPlace {
 public:
  PPPML_HD RowPlace(const DeviceRing<Shape>& ring, const Batch& batch, std::uint64_t b)
      : ring_(ring),
        b_(b),
        length_(static_cast<unsigned>(b + 1 == batch.blocks ? batch.last_length : Shape::kDegree)) {}

  PPPML_HD unsigned length() const { return length_; }
  PPPML_HD std::uint64_t words(unsigned l) const { return b_ * Shape::kBlockWords + l * length_; }
  PPPML_HD std::uint64_t bytes(unsigned l) const {
    std::uint64_t at = 0;
    PPPML_UNROLL
    for (unsigned i = 0; i < Shape::kPrimes; ++i) {
      at += b_ * packed_bytes(ring_.primes[i].bits, Shape::kDegree);
      if (i < l) at += packed_bytes(ring_.primes[i].bits, length_);
    }
    return at;
  }

 private:
  const DeviceRing<Shape>& ring_;
  std::uint64_t b_;
  unsigned length_;
};

PPPML_HD bool aligned4(const void* pointer) {
  return (reinterpret_cast<std::uintptr_t>(pointer) & 3) == 0;
}

// A packed row of residues, read.
class PackedRow {
 public:
  PPPML_HD PackedRow(const std::uint8_t* data, unsigned bits, unsigned count)
      : data_(data),
        bits_(bits),
        count_(count),
        bytes_(static_cast<unsigned>(packed_bytes(bits, count))),
        aligned_(aligned4(data)) {}

  PPPML_HD std::uint64_t operator[](unsigned k) const {
    const unsigned first = k * bits_, shift = first % 32;
    std::uint64_t value = (word(first / 32) | std::uint64_t{word(first / 32 + 1)} << 32) >> shift;
    if (shift + bits_ > 64) value |= std::uint64_t{word(first / 32 + 2)} << (64 - shift);
    return value & ((std::uint64_t{1} << bits_) - 1);
  }

  // Whether the bits behind the last residue are zero.
  PPPML_HD bool padding_is_zero() const {
    const unsigned used = count_ * bits_ % 8;
    return used == 0 || data_[bytes_ - 1] >> used == 0;
  }

 private:
  // Bytes beyond the row are not read and count as zero.
  PPPML_HD std::uint32_t word(unsigned index) const {
    const unsigned at = 4 * index;
    if (aligned_ && at + 4 <= bytes_) return *reinterpret_cast<const std::uint32_t*>(data_ + at);
    std::uint32_t value = 0;
    PPPML_NO_UNROLL
    for (unsigned i = 0; i < 4 && at + i < bytes_; ++i) value |= std::uint32_t{data_[at + i]} << (8 * i);
    return value;
  }

  const std::uint8_t* data_;
  unsigned bits_, count_, bytes_;
  bool aligned_;
};

// A packed row of residues, written a 32-bit word at a time by whoever asks for that word.
class PackedWriter {
 public:
  PPPML_HD PackedWriter(std::uint8_t* data, unsigned bits, unsigned count)
      : data_(data),
        bits_(bits),
        count_(count),
        bytes_(static_cast<unsigned>(packed_bytes(bits, count))),
        reciprocal_(0xffffffffu / bits + 1),
        aligned_(aligned4(data)) {}

  PPPML_HD unsigned words() const { return (bytes_ + 3) / 4; }

  // residue(k): residue k of the row. At most 2^18 bits: the reciprocal's error does not reach a quotient.
  template <class Residue>
  PPPML_HD void write(unsigned index, Residue residue) const {
    const unsigned first = 32 * index;
    unsigned k = multiply_high<std::uint32_t>(first, reciprocal_);
    const unsigned skipped = first - k * bits_;
    std::uint64_t value = static_cast<std::uint64_t>(residue(k)) >> skipped;
    for (unsigned held = bits_ - skipped; held < 32 && ++k < count_; held += bits_) {
      value |= static_cast<std::uint64_t>(residue(k)) << held;
    }
    const unsigned at = 4 * index;
    if (aligned_ && at + 4 <= bytes_) {
      *reinterpret_cast<std::uint32_t*>(data_ + at) = static_cast<std::uint32_t>(value);
      return;
    }
    PPPML_NO_UNROLL
    for (unsigned i = 0; i < 4 && at + i < bytes_; ++i) data_[at + i] = static_cast<std::uint8_t>(value >> (8 * i));
  }

 private:
  std::uint8_t* data_;
  unsigned bits_, count_, bytes_;
  std::uint32_t reciprocal_;
  bool aligned_;
};

}  // namespace pppml::kernels::cuda
