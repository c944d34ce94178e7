#include "base/secret_memory.hpp"

#include <sys/mman.h>

#include <new>

#include "base/buffer.hpp"

namespace pppml {
namespace {

constexpr std::size_t kHugePageBytes = std::size_t{1} << 21;

}  // namespace

SecretMemory::SecretMemory(std::size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  void* const pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  data_ = pages;
  // Advice that an older system refuses: owners check the process at use (ring::OwnerProcess).
#ifdef MADV_WIPEONFORK
  madvise(data_, size_, MADV_WIPEONFORK);
#endif
#ifdef MADV_DONTDUMP
  madvise(data_, size_, MADV_DONTDUMP);
#endif
#ifdef MADV_HUGEPAGE
  if (size_ >= kHugePageBytes) madvise(data_, size_, MADV_HUGEPAGE);
#endif
}

SecretMemory::~SecretMemory() {
  if (data_ != nullptr) munmap(data_, size_);
}

void SecretMemory::lock() {
  // Refused beyond RLIMIT_MEMLOCK: then the pages are as other memory is.
  locked_ = data_ != nullptr && mlock(data_, size_) == 0;
}

void SecretMemory::wipe(std::size_t from, std::size_t to) {
  if (data_ == nullptr) return;
  if (from < to) pppml::wipe(static_cast<char*>(data_) + from, to - from);
  if (locked_) munlock(data_, size_);  // locked pages are not given back
  locked_ = false;
  madvise(data_, size_, MADV_DONTNEED);
}

}  // namespace pppml
