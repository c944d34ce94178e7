// A block of threads that works on one polynomial, on the device and on the host.
//
// Kernel bodies are written as *phases*: group.phase(f) runs f(thread) for every thread, and nobody enters the next
// phase before all have left this one. Control flow between phases is the same for all threads. On the device that is a
// barrier; on the host a loop over the threads, so that the very functions that a GPU runs are tested without one. A
// phase whose result depends on the order of its threads has a race: the host runs them in several orders.
//
// What a thread keeps across phases stands in a Local. Everything else that differs between the two machines, such as
// atomics and look-ups across a warp, is here as well.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "base/modular.hpp"

#if defined(__CUDACC__)
#define PPPML_UNROLL _Pragma("unroll")
#define PPPML_NO_UNROLL _Pragma("unroll 1")
#else
#define PPPML_UNROLL
#define PPPML_NO_UNROLL
#endif

namespace pppml::kernels::cuda {

constexpr unsigned kWarp = 32;

// The order in which the host runs the threads of a phase.
enum class Order { kAscending, kDescending, kScattered };

#if defined(__CUDACC__)

// The functions of a group are called on the device alone; being declared for both keeps their callers callable there.
template <unsigned kThreads>
struct DeviceGroup {
  template <class T>
  struct Local {
    PPPML_HD T& operator[](unsigned) { return value; }
    T value;
  };

  template <class Body>
  PPPML_HD void phase(Body body) const {
#if defined(__CUDA_ARCH__)
    body(threadIdx.x);
    __syncthreads();
#endif
  }
  PPPML_HD std::uint64_t index() const {
#if defined(__CUDA_ARCH__)
    return blockIdx.x;
#else
    return 0;
#endif
  }
};

#endif

template <unsigned kThreads>
struct HostGroup {
  template <class T>
  struct Local {
    Local() : values(kThreads) { std::memset(static_cast<void*>(values.data()), 0x5a, kThreads * sizeof(T)); }
    T& operator[](unsigned thread) { return values[thread]; }
    std::vector<T> values;
  };

  template <class Body>
  void phase(Body body) const {
    for (unsigned i = 0; i < kThreads; ++i) {
      // 5 i + 3 visits every thread once: their number is a power of two.
      const unsigned scattered = (5 * i + 3) % kThreads;
      body(order == Order::kAscending ? i : order == Order::kDescending ? kThreads - 1 - i : scattered);
    }
  }
  std::uint64_t index() const { return number; }

  std::uint64_t number;
  Order order;
};

// A table of 32 entries that a warp holds in one register of each lane: whoever asks gets any entry in the time of any
// other, which memory would not promise for secret indices. All lanes of a warp ask together.
class LaneTable {
 public:
  // entries: 32 words. thread: of the block.
  PPPML_HD LaneTable(const std::uint32_t* entries, unsigned thread) {
#if defined(__CUDA_ARCH__)
    held_ = entries[thread % kWarp];
#else
    static_cast<void>(thread);
    entries_ = entries;
#endif
  }

  // entry index % 32
  PPPML_HD std::uint32_t operator[](std::uint32_t index) const {
#if defined(__CUDA_ARCH__)
    return __shfl_sync(0xffffffffu, held_, static_cast<int>(index));
#else
    return entries_[index % kWarp];
#endif
  }

 private:
#if defined(__CUDA_ARCH__)
  std::uint32_t held_;
#else
  const std::uint32_t* entries_;
#endif
};

// Zero bits above the highest set one; 32 for 0.
PPPML_HD unsigned leading_zeros(std::uint32_t value) {
#if defined(__CUDA_ARCH__)
  return static_cast<unsigned>(__clz(static_cast<int>(value)));
#else
  return value == 0 ? 32 : static_cast<unsigned>(__builtin_clz(value));
#endif
}

// Atomic among the threads of all blocks on the device.
PPPML_HD void atomic_add(std::uint64_t* target, std::uint64_t amount) {
#if defined(__CUDA_ARCH__)
  atomicAdd(reinterpret_cast<unsigned long long*>(target), static_cast<unsigned long long>(amount));
#else
  *target += amount;
#endif
}
PPPML_HD void atomic_add(std::uint32_t* target, std::uint32_t amount) {
#if defined(__CUDA_ARCH__)
  atomicAdd(target, amount);
#else
  *target += amount;
#endif
}
PPPML_HD void atomic_min(std::uint64_t* target, std::uint64_t value) {
#if defined(__CUDA_ARCH__)
  atomicMin(reinterpret_cast<unsigned long long*>(target), static_cast<unsigned long long>(value));
#else
  if (value < *target) *target = value;
#endif
}
PPPML_HD void atomic_max(std::uint64_t* target, std::uint64_t value) {
#if defined(__CUDA_ARCH__)
  atomicMax(reinterpret_cast<unsigned long long*>(target), static_cast<unsigned long long>(value));
#else
  if (value > *target) *target = value;
#endif
}

}  // namespace pppml::kernels::cuda
