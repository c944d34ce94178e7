// Calls of CUDA's runtime on one device, their errors thrown with the call's text.
#pragma once

#include <cuda_runtime.h>

#include "base/check.hpp"
#include "kernels/cuda/runtime.hpp"

namespace pppml::kernels::cuda {

// Makes a device current for as long as the object lives, and then the one that was.
class OnDevice {
 public:
  explicit OnDevice(int device);
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice();

 private:
  int before_ = -1;
};

// Throws DeviceError unless the call succeeded; `call` is what was called, with what.
void check_call(cudaError_t status, const std::string& call);

inline cudaStream_t native(Stream stream) {
  return static_cast<cudaStream_t>(stream.handle);
}

// Queues a kernel of `blocks` blocks.
template <class Request>
void start(void (*kernel)(Request), const char* name, Stream stream, std::uint64_t blocks, unsigned threads,
           const Request& request) {
  constexpr std::uint64_t kMostBlocks = (std::uint64_t{1} << 31) - 1;
  require(blocks <= kMostBlocks, blocks, " blocks exceed the ", kMostBlocks, " of one launch; work on ranges of them");
  if (blocks == 0) return;
  const OnDevice current(stream.device);
  kernel<<<static_cast<unsigned>(blocks), threads, 0, native(stream)>>>(request);
  check_call(cudaGetLastError(), concatenate(name, "<<<", blocks, ", ", threads, ">>> on device ", stream.device));
}

}  // namespace pppml::kernels::cuda
