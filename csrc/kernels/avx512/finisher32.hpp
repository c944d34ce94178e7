// The last steps of a row of residues on its way to memory or to the wire.
#pragma once

#include <algorithm>
#include <cstring>

#include "base/buffer.hpp"
#include "kernels/avx512/packing32.hpp"
#include "kernels/avx512/prefetcher.hpp"
#include "kernels/avx512/uncached.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

// Whether residues come by ascending position. A transform's last pass hands them out in strides: packed, they are put
// together in the cache first, since memory takes one long stream better than many short ones.
enum class Order { kAscending, kStrided };

// Small signed numbers and what comes in, added to residues on their way to memory. One row after the other; takes
// residues k .. k + 15 for every k once.
class RowFinisher {
 public:
  RowFinisher(const RingTable<std::uint32_t>& ring, Order order, const RowsIn<std::uint32_t>& incoming,
              const RowsOut<std::uint32_t>& out)
      : order_(order), incoming_(incoming), out_(out), row_(ring.degree()), scratch_(ring.degree()) {}
  ~RowFinisher() {
    if (uncached_) _mm_sfence();
  }
  RowFinisher(const RowFinisher&) = delete;
  RowFinisher& operator=(const RowFinisher&) = delete;

  // Says how many blocks are to come: long outputs are stored past the caches.
  void expect(const RingTable<std::uint32_t>& ring, std::size_t blocks) {
    const std::size_t block_bytes =
        out_.words != nullptr ? ring.block_words() * sizeof(std::uint32_t) : packed_block_bytes(ring);
    uncached_ = blocks * block_bytes >= kUncachedBytes;
  }

  // Say what the next block reads and writes.
  void announce_input(const RingTable<std::uint32_t>& ring, Prefetcher& soon) const {
    if (incoming_.packed != nullptr) soon.read(incoming_.packed, packed_block_bytes(ring));
    if (incoming_.words != nullptr) soon.read(incoming_.words, ring.block_words() * sizeof(std::uint32_t));
  }
  void announce(const RingTable<std::uint32_t>& ring, Prefetcher& soon) const {
    announce_input(ring, soon);
    if (uncached_) {
      // What is not a whole line at the end of a row is stored through the caches.
      const std::uint8_t* end = out_.packed;
      for (unsigned l = 0; l < ring.prime_count && out_.packed != nullptr; ++l) {
        end += packed_row_bytes(ring.primes[l], ring.degree());
        soon.write(end - 1, 1);
      }
      return;
    }
    if (out_.packed != nullptr) soon.write(out_.packed, packed_block_bytes(ring));
    if (out_.words != nullptr) soon.write(out_.words, ring.block_words() * sizeof(std::uint32_t));
  }

  // Puts the next row elsewhere.
  void redirect(std::uint32_t* words) { out_ = {words, nullptr}; }

  // noise: int32 or null; message: integers that count `scale` each, or null. Rows of N residues of a 31-bit
  // prime go straight to their place.
  void begin(const PrimeTable<std::uint32_t>& prime, std::size_t degree, std::size_t length, const std::int32_t* noise,
             const std::int32_t* message, std::int64_t scale) {
    prime_ = &prime;
    length_ = length;
    noise_ = noise;
    message_ = message;
    direct_ = length == degree && prime.bits == kPackedBits;
    modulus_ = broadcast(prime.modulus);
    aligned_ = uncached_ && reinterpret_cast<std::uintptr_t>(out_.words) % 64 == 0;
    scale_ = broadcast(static_cast<std::uint32_t>(scale));
  }

  void take(std::size_t k, Vector residues) {
    Vector sum = residues;
    if (noise_ != nullptr || message_ != nullptr) {
      Vector small = noise_ == nullptr ? _mm512_setzero_si512() : _mm512_loadu_si512(noise_ + k);
      if (message_ != nullptr) {
        small = _mm512_add_epi32(small, _mm512_mullo_epi32(_mm512_loadu_si512(message_ + k), scale_));
      }
      sum = add_mod(sum, from_signed(small, modulus_), modulus_);
    }
    if (!direct_) return store(row_.data() + k, sum);
    if (incoming_.words != nullptr) sum = add_mod(sum, load(incoming_.words + k), modulus_);
    if (incoming_.packed != nullptr) {
      const Vector added = unpack16(incoming_.packed + k / kLanes * kPackedBytes);
      largest_ = _mm512_max_epu32(largest_, added);
      sum = add_mod(sum, added, modulus_);
    }
    if (out_.words != nullptr) return store_words(k, sum);
    pack16(sum, (order_ == Order::kAscending ? out_.packed : staged()) + k / kLanes * kPackedBytes);
  }

  // False when a residue that came in was not below the prime.
  bool end() {
    const std::size_t bytes = packed_row_bytes(*prime_, length_);
    bool valid = true;
    if (direct_) {
      valid = _mm512_cmpge_epu32_mask(largest_, modulus_) == 0;
      largest_ = _mm512_setzero_si512();
      if (out_.packed != nullptr && order_ == Order::kStrided) {
        if (uncached_) {
          copy_uncached(staged(), bytes, out_.packed);
        } else {
          std::memcpy(out_.packed, staged(), bytes);
        }
      }
    } else {
      valid = finish_row();
    }
    if (incoming_.words != nullptr) incoming_.words += length_;
    if (incoming_.packed != nullptr) incoming_.packed += bytes;
    if (out_.words != nullptr) out_.words += length_;
    if (out_.packed != nullptr) out_.packed += bytes;
    return valid;
  }

 private:
  void store_words(std::size_t k, Vector sum) {
    if (aligned_) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(out_.words + k), sum);
    } else {
      store(out_.words + k, sum);
    }
  }

  std::uint8_t* staged() { return reinterpret_cast<std::uint8_t*>(row_.data()); }

  bool finish_row() {
    std::uint32_t* target = out_.words != nullptr ? out_.words : row_.data();
    const std::uint32_t* added = incoming_.words;
    if (incoming_.packed != nullptr) {
      if (!unpack_row(*prime_, incoming_.packed, length_, scratch_.data())) return false;
      added = scratch_.data();
    }
    for_lanes(length_, [&](std::size_t k, __mmask16 lanes) {
      Vector sum = load_part(row_.data() + k, lanes);
      if (added != nullptr) sum = add_mod(sum, load_part(added + k, lanes), modulus_);
      _mm512_mask_storeu_epi32(target + k, lanes, sum);
    });
    if (out_.packed != nullptr) pack_row(*prime_, target, length_, out_.packed);
    return true;
  }

  Order order_;
  RowsIn<std::uint32_t> incoming_;
  RowsOut<std::uint32_t> out_;
  SecretBuffer<std::uint32_t> row_, scratch_;
  const PrimeTable<std::uint32_t>* prime_ = nullptr;
  std::size_t length_ = 0;
  const std::int32_t* noise_ = nullptr;
  const std::int32_t* message_ = nullptr;
  bool direct_ = false;    // rows go straight to their place
  bool uncached_ = false;  // past the caches
  bool aligned_ = false;   // ... in whole lines
  Vector modulus_{}, scale_{}, largest_{};
};

}  // namespace pppml::kernels::avx512
