// Splitting work over threads that live for one call: nothing survives to be broken by a fork.
#pragma once

#include <cstddef>
#include <functional>

namespace pppml {

// Threads that parallel_for may use. At first OMP_NUM_THREADS, or the processors this process may run on.
unsigned thread_count();
void set_thread_count(unsigned count);  // 1 .. 1024, else RequirementError

// Calls body(begin, end) on contiguous parts that cover [0, count), no part but the last shorter than `grain`. Rethrows
// the first exception once every part has ended.
void parallel_for(std::size_t count, std::size_t grain, const std::function<void(std::size_t, std::size_t)>& body);

}  // namespace pppml
