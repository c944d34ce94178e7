// A process that gives no memory back: what was freed stays as it was when it was freed, and can be searched.
//
// kept_memory.cpp takes the place of malloc and its kin, of munmap and of madvise for the whole binary.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace pppml::tests {

// Windows of memory to look for, as hashes alone: the search must not find what it searches for in its own tables. They
// lie in memory that a fork shares.
class Traces {
 public:
  Traces();

  // Every whole window of `window` bytes in `bytes`; windows whose first word is zero are left out. `label` outlives.
  void add(const char* label, const void* bytes, std::size_t count, std::size_t window);

  // The labels of what is found in this process's own writable memory, stacks included, each with the number of windows
  // and the first place: heap, stack or mapping.
  std::vector<std::string> search() const;

 private:
  struct Entry {
    std::uint64_t hash;
    const char* label;
  };
  static constexpr std::size_t kEntries = std::size_t{1} << 19;
  // One bit for each first word of a window, folded: nearly all of memory is passed over by it.
  static constexpr std::size_t kFilterBits = std::size_t{1} << 24;

  static std::size_t folded(std::uint32_t word) { return word * 2654435761u >> 8; }
  const char* find(std::uint64_t hash) const;

  Entry* entries_;
  std::uint8_t* filter_;
  std::vector<std::size_t> windows_;
};

}  // namespace pppml::tests
