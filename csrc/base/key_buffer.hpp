// Keys that live long: arrays in pages of their own.
#pragma once

#include <memory>
#include <type_traits>

#include "base/secret_memory.hpp"

namespace pppml {

// Fixed-size array of trivially copyable T: zero at birth, in no core dump, zero in a forked child, kept out of swap
// where the system's limit on locked memory allows, wiped at its end. Moves, never copies. A page at least: for what is
// used once there is SecretBuffer. Whoever reads it checks the process first (ring::OwnerProcess): a child that
// computed with zeros would encrypt in the clear.
template <class T>
class KeyBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  KeyBuffer() = default;
  explicit KeyBuffer(std::size_t size) : memory_(std::make_unique<SecretMemory>(size * sizeof(T))), size_(size) {
    memory_->lock();
  }
  KeyBuffer(KeyBuffer&& other) noexcept = default;
  KeyBuffer& operator=(KeyBuffer&& other) noexcept {
    clear();
    memory_ = std::move(other.memory_);
    size_ = other.size_;
    return *this;
  }
  ~KeyBuffer() { clear(); }

  T* data() { return memory_ ? static_cast<T*>(memory_->data()) : nullptr; }
  const T* data() const { return memory_ ? static_cast<const T*>(memory_->data()) : nullptr; }
  std::size_t size() const { return memory_ ? size_ : 0; }
  T& operator[](std::size_t i) { return data()[i]; }
  const T& operator[](std::size_t i) const { return data()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + size(); }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size(); }

 private:
  void clear() {
    if (memory_) memory_->wipe(0, memory_->size());
  }

  std::unique_ptr<SecretMemory> memory_;
  std::size_t size_ = 0;
};

}  // namespace pppml
