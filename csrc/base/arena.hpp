// Memory for large outputs: huge pages that are used again.
//
// Writing to a fresh 4 KiB page costs several times what the write does, for the kernel zeroes and maps the page first.
// A block here is mapped at a huge page's alignment, advised to be backed by huge pages, and kept when its owner ends,
// up to a limit; the next block of its size starts warm.
//
// A kept block still holds what its last owner wrote, as freed memory does everywhere. Nobody but this process ever
// sees it, and within the process only a reader of uninitialised memory: whoever needs zeros asks for Contents::kZero.
// Decrypted sums and quantised weights may therefore linger until release_arena(). Keys, noise and pads never come
// here: they live in SecretBuffer, which is wiped.
//
// Any thread may take and give blocks. Mappings are private, so that a fork's blocks are copies and neither side sees
// what the other writes. A fork gives back the blocks it inherits unused: writing to one would first copy what nobody
// wants.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pppml {

constexpr std::size_t kHugePageBytes = std::size_t{1} << 21;
// Smaller outputs are left to the ordinary allocator: a huge page would mostly be waste.
constexpr std::size_t kLeastArenaBytes = std::size_t{1} << 20;

enum class Contents { kAny, kZero };

// Capacity of a block for `bytes`: whole huge pages, and from 16 MiB on a multiple of an eighth of the power of two at
// or below `bytes`, so that outputs of nearly the same size share blocks and at most an eighth lies idle. Throws
// std::bad_alloc where that is no address space.
std::size_t arena_capacity(std::size_t bytes);

// Owns one block, aligned to kHugePageBytes; its memory goes back to the arena at its end.
class ArenaBlock {
 public:
  ArenaBlock(std::size_t bytes, Contents contents);  // throws std::bad_alloc
  ~ArenaBlock();
  ArenaBlock(const ArenaBlock&) = delete;
  ArenaBlock& operator=(const ArenaBlock&) = delete;

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  std::size_t capacity_ = 0;
};

// `kept` are blocks without an owner; `mapped` and `reused` count how blocks were come by since the process began.
struct ArenaStatistics {
  std::size_t used_blocks = 0, used_bytes = 0;
  std::size_t kept_blocks = 0, kept_bytes = 0;
  std::size_t limit = 0;
  std::uint64_t mapped = 0, reused = 0;
};
ArenaStatistics arena_statistics();

// Bytes that may be kept; at first 1 GiB, or a quarter of the machine's memory if that is less. Beyond it the block
// that lay unused the longest goes back to the system first.
void set_arena_limit(std::size_t bytes);

// Gives all kept blocks back to the system and returns their bytes.
std::size_t release_arena();

}  // namespace pppml
