// What the rest of the core asks of CUDA: devices, memory, streams. One of three files defines it: runtime.cu, with the
// CUDA runtime; runtime_absent.cpp, in builds without; runtime_host.cpp, in builds for tests, where the processor plays
// the device.
//
// No state of this library stands behind these functions. Every call names its device, and leaves the caller's current
// device as it was. Work is queued on the caller's stream; `synchronize` alone, and copies to the host, wait for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace pppml::kernels::cuda {

// A call of CUDA failed, or there is no device to call. The text names call, cause and remedy.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
class DeviceMemoryError : public DeviceError {
 public:
  using DeviceError::DeviceError;
};

struct DeviceDescription {
  std::string name;
  int major, minor;  // compute capability
  std::uint64_t memory, free_memory;
};

// A stream of a device; the handle is a cudaStream_t, null for the device's default stream.
struct Stream {
  int device;
  void* handle;
};

// Whether this build can use a device where there is one.
bool built();
// Why no device can be used here; empty where one can.
std::string why_unusable();
// 0 where none can be used.
int device_count();
DeviceDescription describe(int device);
// Device of a pointer, or -1 for memory of the host.
int device_of(const void* pointer);

void synchronize(Stream stream);
// Lets `stream` wait for what `producer`, of the same device, has been given so far.
void wait(Stream stream, Stream producer);
// Queued. Pageable `host` may be changed, wiped or freed on return; pinned, once the stream has come so far.
void copy_to_device(Stream stream, void* device, const void* host, std::size_t bytes);
// Returns once the bytes are there.
void copy_to_host(Stream stream, void* host, const void* device, std::size_t bytes);
// Queued: the bytes are there once the stream has come so far. `host` is pinned, or the call may wait.
void queue_to_host(Stream stream, void* host, const void* device, std::size_t bytes);
void zero(Stream stream, void* device, std::size_t bytes);

// Stream-ordered allocation. Throws DeviceMemoryError.
void* allocate(Stream stream, std::size_t bytes);
void release(Stream stream, void* memory) noexcept;
void zero_quietly(Stream stream, void* memory, std::size_t bytes) noexcept;

// Memory of the host that a device copies to and from by itself. Throws DeviceMemoryError.
void* allocate_pinned(int device, std::size_t bytes);
void release_pinned(void* memory) noexcept;

enum class Secrecy { kPublic, kSecret };

// Memory of a device for as long as the object lives, allocated and given back in the order of its stream; secret
// memory is zeroed first.
class DeviceMemory {
 public:
  DeviceMemory(Stream stream, std::size_t bytes, Secrecy secrecy)
      : stream_(stream), bytes_(bytes), secrecy_(secrecy), data_(bytes == 0 ? nullptr : allocate(stream, bytes)) {}
  DeviceMemory(DeviceMemory&& other) noexcept
      : stream_(other.stream_),
        bytes_(other.bytes_),
        secrecy_(other.secrecy_),
        data_(std::exchange(other.data_, nullptr)) {}
  DeviceMemory& operator=(DeviceMemory&&) = delete;
  ~DeviceMemory() {
    if (data_ == nullptr) return;
    if (secrecy_ == Secrecy::kSecret) zero_quietly(stream_, data_, bytes_);
    release(stream_, data_);
  }

  Stream stream() const { return stream_; }
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  Stream stream_;
  std::size_t bytes_;
  Secrecy secrecy_;
  void* data_;
};

// Pinned memory for as long as the object lives; whoever queued copies to it waits for them first.
class PinnedMemory {
 public:
  PinnedMemory(int device, std::size_t bytes)
      : bytes_(bytes), data_(bytes == 0 ? nullptr : allocate_pinned(device, bytes)) {}
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  ~PinnedMemory() {
    if (data_ != nullptr) release_pinned(data_);
  }

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_;
  void* data_;
};

}  // namespace pppml::kernels::cuda
