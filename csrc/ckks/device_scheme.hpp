// The operations of a scheme on a CUDA device: the same bits, from tensors and to tensors in the device's memory.
//
// Everything is queued on the caller's stream; nothing waits but PendingReport::wait. A message that is refused (NaN,
// Inf, a foreign residue), or a sum whose residuals are, leaves zeros behind, by a kernel queued after the operation:
// whoever reads the result on the same stream finds these, and whoever takes it to the host asks the report first.
#pragma once

#include <memory>
#include <vector>

#include "ckks/scheme.hpp"
#include "kernels/cuda/requests.hpp"
#include "kernels/cuda/runtime.hpp"

namespace pppml::ckks {

using kernels::cuda::Stream;

// A contiguous tensor in the memory of a device.
struct DeviceTensor {
  void* data;
  std::uint64_t length;
  kernels::Dtype dtype;
};

// As Plain. The lists are read before a call returns; their tensors' memory when its work is done.
struct DevicePlain {
  std::vector<DeviceTensor> tensors, reference;
  double weight;
};

// What an operation found out, still on the device.
class PendingReport {
 public:
  explicit PendingReport(Stream stream);
  // Waits for the operation.
  kernels::cuda::DeviceReport wait() const;
  kernels::cuda::DeviceReport* on_device() const { return static_cast<kernels::cuda::DeviceReport*>(memory_.data()); }
  Stream stream() const { return memory_.stream(); }

 private:
  kernels::cuda::DeviceMemory memory_;
};

// Rows are those of Scheme, in the device's memory: words, or packed bytes. A `Range` with a stop before the last block
// works as there.
class DeviceScheme {
 public:
  // `host` must outlive it. Throws RequirementError for slots and for rings that no kernel was built for, DeviceError
  // where the device cannot be used.
  static std::unique_ptr<DeviceScheme> create(const Scheme& host, int device);
  virtual ~DeviceScheme() = default;

  const Scheme& host() const { return host_; }
  int device() const { return device_; }

  // Private streams are ChaCha20. `incoming` is null or packed rows, which may be the memory of `out`.
  virtual std::unique_ptr<PendingReport> encrypt(const SecretKey& secret, const ring::StreamKey& noise,
                                                 const std::uint8_t* public_seed, const DevicePlain& plain,
                                                 const Range& range, const std::uint8_t* incoming, const RowTarget& out,
                                                 Stream stream) const = 0;
  virtual std::unique_ptr<PendingReport> encrypt_public(const PublicKey& key, const ring::StreamKey& noise,
                                                        const DevicePlain& plain, const Range& range,
                                                        const RowTarget& c0, const RowTarget& c1,
                                                        Stream stream) const = 0;
  virtual void add(const Extent& extent, const std::vector<const void*>& inputs, void* out, Stream stream) const = 0;
  // out = in + mine, rows of [start, stop); in and out each words or packed. `mine` are words or null. An invalid
  // residue that comes in makes `out` zero.
  virtual std::unique_ptr<PendingReport> move(const Extent& extent, std::uint64_t start, std::uint64_t stop,
                                              const RowSource& in, const void* mine, const RowTarget& out,
                                              Stream stream) const = 0;
  // To `integers`, or to tensors that together hold the range's weights, divided by `divisor`.
  virtual std::unique_ptr<PendingReport> open(const SecretKey& secret, const Range& range, std::uint64_t terms,
                                              const RowSource& c0, const RowSource& c1, const std::uint8_t* public_seed,
                                              std::int64_t* integers, const std::vector<DeviceTensor>& tensors,
                                              double divisor, Stream stream) const = 0;

 protected:
  DeviceScheme(const Scheme& host, int device) : host_(host), device_(device) {}

 private:
  const Scheme& host_;
  int device_;
};

}  // namespace pppml::ckks
