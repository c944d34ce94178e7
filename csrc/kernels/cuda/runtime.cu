#include "kernels/cuda/runtime.hpp"

#include "kernels/cuda/launch.hpp"
#include "kernels/cuda/on_device.cuh"
#include "kernels/cuda/sums.hpp"

namespace pppml::kernels::cuda {
namespace {

constexpr int kLeastMajor = 8;

std::string version_text(int version) {
  return concatenate(version / 1000, ".", version % 1000 / 10);
}

std::string with_remedy(cudaError_t status, const std::string& call) {
  std::string text = concatenate(call, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")");
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0, needed = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&needed);
    text += driver == 0 ? "; there is no NVIDIA driver here, or it does not load"
                        : concatenate("; the driver supports CUDA ", version_text(driver), ", this build needs ",
                                      version_text(needed), ": update the driver");
  } else if (status == cudaErrorNoKernelImageForDevice) {
    text += concatenate("; the kernels are built for compute capability ", kLeastMajor, ".0 and later");
  } else if (status == cudaErrorMemoryAllocation) {
    std::size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) == cudaSuccess) {
      text += concatenate("; ", free, " of ", total, " bytes are free");
    }
    text += ". Free tensors, or work on fewer blocks at a time";
  }
  return text;
}

__global__ __launch_bounds__(kWipeThreads) void wipe_kernel(const __grid_constant__ WipeRequest request) {
  wipe_block(DeviceGroup<kWipeThreads>{}, request);
}

__global__ __launch_bounds__(kTagThreads) void tag_kernel(const __grid_constant__ TagRequest request) {
  __shared__ TagState state;
  tag_block(DeviceGroup<kTagThreads>{}, request, state);
}

}  // namespace

void check_call(cudaError_t status, const std::string& call) {
  if (status == cudaSuccess) return;
  const std::string text = with_remedy(status, call);
  static_cast<void>(cudaGetLastError());  // or the next call would find it
  if (status == cudaErrorMemoryAllocation) throw DeviceMemoryError(text);
  throw DeviceError(text);
}

OnDevice::OnDevice(int device) {
  check_call(cudaGetDevice(&before_), "cudaGetDevice");
  if (before_ == device) {
    before_ = -1;
    return;
  }
  check_call(cudaSetDevice(device), concatenate("cudaSetDevice(", device, ")"));
}

OnDevice::~OnDevice() {
  if (before_ >= 0) static_cast<void>(cudaSetDevice(before_));
}

bool built() {
  return true;
}

std::string why_unusable() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    const std::string text = with_remedy(status, "cudaGetDeviceCount");
    static_cast<void>(cudaGetLastError());
    return text;
  }
  if (count == 0) return "no CUDA device is visible; see CUDA_VISIBLE_DEVICES";
  for (int device = 0; device < count; ++device) {
    int major = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
        major >= kLeastMajor) {
      return "";
    }
  }
  return concatenate("no device of compute capability ", kLeastMajor, ".0 or later is visible");
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  static_cast<void>(cudaGetLastError());
  return 0;
}

DeviceDescription describe(int device) {
  cudaDeviceProp properties;
  check_call(cudaGetDeviceProperties(&properties, device), concatenate("cudaGetDeviceProperties(", device, ")"));
  const OnDevice current(device);
  std::size_t free = 0, total = 0;
  check_call(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return {properties.name, properties.major, properties.minor, total, free};
}

int device_of(const void* pointer) {
  cudaPointerAttributes attributes;
  if (cudaPointerGetAttributes(&attributes, pointer) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return -1;
  }
  const bool on_device = attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  return on_device ? attributes.device : -1;
}

void synchronize(Stream stream) {
  const OnDevice current(stream.device);
  check_call(cudaStreamSynchronize(native(stream)), concatenate("cudaStreamSynchronize on device ", stream.device));
}

void wait(Stream stream, Stream producer) {
  const OnDevice current(producer.device);
  cudaEvent_t event = nullptr;
  check_call(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  cudaError_t status = cudaEventRecord(event, native(producer));
  if (status == cudaSuccess) status = cudaStreamWaitEvent(native(stream), event, 0);
  static_cast<void>(cudaEventDestroy(event));  // takes effect once the event has happened
  check_call(status, "cudaStreamWaitEvent");
}

// Pageable memory is staged, and free once the call returns, but where a device goes through the page tables of the
// host (Grace Hopper): there the copy may be under way still [CUDA runtime API, API synchronization behavior].
static bool reads_pages_itself(int device, const void* host) {
  int shared = 0;
  check_call(cudaDeviceGetAttribute(&shared, cudaDevAttrPageableMemoryAccessUsesHostPageTables, device),
             concatenate("cudaDeviceGetAttribute of device ", device));
  if (shared == 0) return false;
  cudaPointerAttributes attributes;
  check_call(cudaPointerGetAttributes(&attributes, host), "cudaPointerGetAttributes");
  return attributes.type != cudaMemoryTypeHost;
}

void copy_to_device(Stream stream, void* device, const void* host, std::size_t bytes) {
  const OnDevice current(stream.device);
  check_call(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, native(stream)),
             concatenate("cudaMemcpyAsync of ", bytes, " bytes to device ", stream.device));
  if (reads_pages_itself(stream.device, host)) synchronize(stream);
}

void copy_to_host(Stream stream, void* host, const void* device, std::size_t bytes) {
  queue_to_host(stream, host, device, bytes);
  synchronize(stream);
}

void queue_to_host(Stream stream, void* host, const void* device, std::size_t bytes) {
  const OnDevice current(stream.device);
  check_call(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, native(stream)),
             concatenate("cudaMemcpyAsync of ", bytes, " bytes from device ", stream.device));
}

void* allocate_pinned(int device, std::size_t bytes) {
  const OnDevice current(device);
  void* memory = nullptr;
  // Portable: pinned for all devices, whichever of them copies.
  check_call(cudaHostAlloc(&memory, bytes, cudaHostAllocPortable), concatenate("cudaHostAlloc of ", bytes, " bytes"));
  return memory;
}

void release_pinned(void* memory) noexcept {
  static_cast<void>(cudaFreeHost(memory));
  static_cast<void>(cudaGetLastError());
}

void zero(Stream stream, void* device, std::size_t bytes) {
  const OnDevice current(stream.device);
  check_call(cudaMemsetAsync(device, 0, bytes, native(stream)),
             concatenate("cudaMemsetAsync of ", bytes, " bytes on device ", stream.device));
}

void* allocate(Stream stream, std::size_t bytes) {
  const OnDevice current(stream.device);
  void* data = nullptr;
  check_call(cudaMallocAsync(&data, bytes, native(stream)),
             concatenate("cudaMallocAsync of ", bytes, " bytes on device ", stream.device));
  return data;
}

// Both also run at the end of a process, when the driver may be gone before the memory: then there is nothing to do.
template <class Call>
static void quietly(Stream stream, Call call) noexcept {
  int before = -1;
  static_cast<void>(cudaGetDevice(&before));
  if (cudaSetDevice(stream.device) == cudaSuccess) static_cast<void>(call());
  if (before >= 0) static_cast<void>(cudaSetDevice(before));
  static_cast<void>(cudaGetLastError());
}

void release(Stream stream, void* memory) noexcept {
  quietly(stream, [&] { return cudaFreeAsync(memory, native(stream)); });
}

void zero_quietly(Stream stream, void* memory, std::size_t bytes) noexcept {
  quietly(stream, [&] { return cudaMemsetAsync(memory, 0, bytes, native(stream)); });
}

void launch_wipe(Stream stream, const WipeRequest& request) {
  start(wipe_kernel, "wipe_kernel", stream, kWipeBlocks, kWipeThreads, request);
}

void launch_tag(Stream stream, const TagRequest& request, std::uint64_t pieces) {
  start(tag_kernel, "tag_kernel", stream, pieces, kTagThreads, request);
}

}  // namespace pppml::kernels::cuda
