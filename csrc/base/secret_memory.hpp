// Memory for many secrets that wait for their use.
#pragma once

#include <cstddef>

namespace pppml {

// Pages of their own: zero at birth, in no core dump, zero in a forked child where the system can do that. Whoever
// writes to them wipes what it wrote; unmapping alone leaves it in RAM until the system needs the pages.
class SecretMemory {
 public:
  explicit SecretMemory(std::size_t bytes);  // throws std::bad_alloc
  ~SecretMemory();
  SecretMemory(const SecretMemory&) = delete;
  SecretMemory& operator=(const SecretMemory&) = delete;

  void* data() const { return data_; }
  std::size_t size() const { return size_; }

  // Keeps the pages out of swap until they are unmapped, as far as the limit on locked memory goes.
  void lock();

  // Zeroes bytes [from, to), all that was written and is not zero already, and gives all pages back. The memory is
  // still there, and zero.
  void wipe(std::size_t from, std::size_t to);

 private:
  void* data_ = nullptr;
  std::size_t size_;
  bool locked_ = false;
};

}  // namespace pppml
