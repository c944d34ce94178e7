#include "tests/kept_memory.hpp"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>

#include "base/check.hpp"

namespace {

// Every block, one after the other, behind its size.
constexpr std::size_t kHeapBytes = std::size_t{4} << 30;
constexpr std::size_t kHeader = 16;
std::atomic<char*> heap_begin{nullptr};
std::atomic<std::size_t> heap_used{0};

char* heap() {
  char* begin = heap_begin;
  if (begin != nullptr) return begin;
  void* const mapped =
      mmap(nullptr, kHeapBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) _exit(3);
  if (!heap_begin.compare_exchange_strong(begin, static_cast<char*>(mapped))) return begin;
  return static_cast<char*>(mapped);
}

void* allocate(std::size_t alignment, std::size_t bytes) {
  alignment = std::max<std::size_t>(alignment, 16);
  const std::size_t taken = (bytes + alignment + 2 * kHeader) / 16 * 16;
  const std::size_t start = heap_used.fetch_add(taken);
  if (start + taken > kHeapBytes) return nullptr;
  const auto address =
      reinterpret_cast<std::uintptr_t>(heap() + start + kHeader + alignment - 1) / alignment * alignment;
  std::memcpy(reinterpret_cast<char*>(address) - sizeof bytes, &bytes, sizeof bytes);
  return reinterpret_cast<void*>(address);
}

}  // namespace

extern "C" {
void* malloc(std::size_t bytes) {
  return allocate(16, bytes);
}
void free(void*) {}
void* calloc(std::size_t count, std::size_t bytes) {
  return allocate(16, count * bytes);  // fresh pages, never used before
}
void* realloc(void* old, std::size_t bytes) {
  void* const block = allocate(16, bytes);
  if (old == nullptr || block == nullptr) return block;
  std::size_t before;
  std::memcpy(&before, static_cast<char*>(old) - sizeof before, sizeof before);
  return std::memcpy(block, old, std::min(before, bytes));
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  return allocate(alignment, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) {
  return allocate(alignment, bytes);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t bytes) {
  *out = allocate(alignment, bytes);
  return *out == nullptr ? ENOMEM : 0;
}
int munmap(void*, std::size_t) {
  return 0;
}
int madvise(void* address, std::size_t bytes, int advice) {
  if (advice == MADV_DONTNEED) return 0;
  return static_cast<int>(syscall(SYS_madvise, address, bytes, advice));
}
}

namespace pppml::tests {
namespace {

// FNV-1a by words.
std::uint64_t hash_of(const char* at, std::size_t window) {
  std::uint64_t hash = 14695981039346656037u + window;
  for (std::size_t i = 0; i < window; i += 4) {
    std::uint32_t word;
    std::memcpy(&word, at + i, sizeof word);
    hash = (hash ^ word) * 1099511628211u;
    hash ^= hash >> 29;
  }
  return hash;
}

struct Mapping {
  const char* begin;
  const char* end;
  std::string name;
};

// Private memory that this process can write, but for the part of the heap that was never used.
std::vector<Mapping> writable_mappings() {
  std::vector<Mapping> found;
  std::FILE* const file = std::fopen("/proc/self/maps", "r");
  require(file != nullptr, "/proc/self/maps cannot be read");
  char line[512];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    unsigned long begin = 0, end = 0;
    char rights[8] = "", name[256] = "";
    std::sscanf(line, "%lx-%lx %7s %*s %*s %*s %255s", &begin, &end, rights, name);
    if (std::strncmp(rights, "rw", 2) != 0 || rights[3] != 'p') continue;
    Mapping mapping{reinterpret_cast<const char*>(begin), reinterpret_cast<const char*>(end), name};
    if (mapping.begin <= heap() && heap() < mapping.end) {
      // A neighbour may have been joined to it.
      if (heap() + kHeapBytes < mapping.end) found.push_back({heap() + kHeapBytes, mapping.end, "mapping"});
      if (mapping.begin < heap()) found.push_back({mapping.begin, heap(), "mapping"});
      mapping = {heap(), heap() + heap_used, "heap"};
    }
    if (mapping.name.empty()) mapping.name = "mapping";
    found.push_back(mapping);
  }
  std::fclose(file);
  return found;
}

}  // namespace

Traces::Traces() {
  void* const shared = mmap(nullptr, kEntries * sizeof(Entry) + kFilterBits / 8, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  require(shared != MAP_FAILED, "no memory for the traces");
  entries_ = static_cast<Entry*>(shared);
  filter_ = reinterpret_cast<std::uint8_t*>(entries_ + kEntries);
  windows_ = {16, 32, 64, 128, 256};
}

void Traces::add(const char* label, const void* bytes, std::size_t count, std::size_t window) {
  require(std::count(windows_.begin(), windows_.end(), window) == 1, "no windows of ", window, " bytes");
  const char* const data = static_cast<const char*>(bytes);
  for (std::size_t at = 0; at + window <= count; at += window) {
    std::uint32_t first;
    std::memcpy(&first, data + at, sizeof first);
    if (first == 0) continue;
    const std::uint64_t hash = hash_of(data + at, window);
    std::size_t slot = hash % kEntries;
    while (entries_[slot].hash != 0 && entries_[slot].hash != hash) slot = (slot + 1) % kEntries;
    entries_[slot] = {hash, label};
    filter_[folded(first) / 8] = static_cast<std::uint8_t>(filter_[folded(first) / 8] | 1u << folded(first) % 8);
  }
}

const char* Traces::find(std::uint64_t hash) const {
  for (std::size_t slot = hash % kEntries; entries_[slot].hash != 0; slot = (slot + 1) % kEntries) {
    if (entries_[slot].hash == hash) return entries_[slot].label;
  }
  return nullptr;
}

std::vector<std::string> Traces::search() const {
  std::map<std::string, std::size_t> found;
  for (const Mapping& mapping : writable_mappings()) {
    for (const char* at = mapping.begin; at < mapping.end; at += 4) {
      std::uint32_t first;
      std::memcpy(&first, at, sizeof first);
      if (first == 0 || (filter_[folded(first) / 8] >> folded(first) % 8 & 1) == 0) continue;
      for (const std::size_t window : windows_) {
        if (static_cast<std::size_t>(mapping.end - at) < window) break;
        const char* const label = find(hash_of(at, window));
        if (label != nullptr) ++found[concatenate(label, " in ", mapping.name)];
      }
    }
  }
  std::vector<std::string> lines;
  for (const auto& [place, count] : found) lines.push_back(concatenate(place, ", ", count, " windows"));
  return lines;
}

}  // namespace pppml::tests
