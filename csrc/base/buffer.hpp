// Owning buffers: cache-line aligned, and a variant that is wiped before its memory is given back.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "base/isa.hpp"

namespace pppml {
PPPML_ISA_BEGIN

// Overwrites memory in a way the compiler may not remove, although nobody reads it again.
inline void wipe(void* data, std::size_t bytes) {
  std::memset(data, 0, bytes);
  asm volatile("" : : "r"(data) : "memory");
}

// Overwrites what functions that have returned left on the stack below the caller: registers the compiler spilled there
// are no variables that could be wiped. The deepest kernels take less than half of this.
[[gnu::noinline]] inline void wipe_stack() {
  char below[std::size_t{1} << 15];
  wipe(below, sizeof below);
}

// Fixed-size array of trivially copyable T, 64-byte aligned, zero at birth; moves, never copies.
// Secret buffers are wiped at their end.
template <class T, bool kSecret>
class BasicBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  static constexpr std::size_t kAlignment = 64;

  BasicBuffer() = default;
  explicit BasicBuffer(std::size_t size) : size_(size) {
    if (size == 0) return;
    const std::size_t bytes = (size * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    data_ = static_cast<T*>(std::aligned_alloc(kAlignment, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(data_, 0, bytes);
  }
  BasicBuffer(BasicBuffer&& other) noexcept { swap(other); }
  BasicBuffer& operator=(BasicBuffer&& other) noexcept {
    BasicBuffer(std::move(other)).swap(*this);
    return *this;
  }
  BasicBuffer(const BasicBuffer&) = delete;
  BasicBuffer& operator=(const BasicBuffer&) = delete;
  ~BasicBuffer() {
    if (kSecret && data_ != nullptr) wipe(data_, size_ * sizeof(T));
    std::free(data_);
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }

 private:
  void swap(BasicBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  T* data_ = nullptr;
  std::size_t size_ = 0;
};

template <class T>
using Buffer = BasicBuffer<T, false>;
template <class T>
using SecretBuffer = BasicBuffer<T, true>;

PPPML_ISA_END
}  // namespace pppml
