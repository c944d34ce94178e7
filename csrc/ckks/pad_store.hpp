// Pads made ahead of the weights, bounded, each for one use.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/secret_memory.hpp"
#include "ckks/scheme.hpp"

namespace pppml::ckks {

// Pads of the first blocks of one encryption. One thread fills the store chunk by chunk while others may ask how far it
// is, or stop it. What it refers to must outlive it. In a forked child it is empty and stays so.
class PadStore {
 public:
  // Room for the blocks of `range`, which begins with block 0.
  PadStore(const Scheme& scheme, const SecretKey& secret, const ring::StreamKey& noise, const std::uint8_t* public_seed,
           const Range& range);
  ~PadStore();
  PadStore(const PadStore&) = delete;
  PadStore& operator=(const PadStore&) = delete;

  // Makes pads until the store is full or stopped. Throws RequirementError in a forked child and on a second thread.
  void fill();
  // Fills no further, but for the chunk that is being made: how many blocks are ready, and stay as they are.
  std::uint64_t halt();
  // Waits until no thread fills, for one chunk at most, and zeroes every pad from block `first` on; those before it
  // were used, and zeroed by that. The store stays empty.
  void wipe(std::uint64_t first = 0);

  // Blocks whose pads are complete, and for how many there is room.
  std::uint64_t ready() const { return owner_.here() ? ready_.load(std::memory_order_acquire) : 0; }
  std::uint64_t capacity() const { return range_.stop; }

  // The pads as residue words, block after block.
  void* words() const { return memory_.data(); }
  std::size_t word_count() const { return scheme_.words({range_.length, true}, 0, range_.stop); }
  std::size_t word_bytes() const { return scheme_.word_bytes(); }

 private:
  void stop();
  std::size_t bytes_before(std::uint64_t block) const;

  const Scheme& scheme_;
  const SecretKey& secret_;
  const ring::StreamKey& noise_;
  std::uint8_t public_seed_[kernels::kStreamKeyBytes];
  Range range_;
  SecretMemory memory_;
  ring::OwnerProcess owner_;
  std::atomic<std::uint64_t> begun_{0}, ready_{0};
  std::atomic<bool> filling_{false}, stopped_{false};
};

}  // namespace pppml::ckks
