// Quantising tensors of every type and stride, in single and double precision.
#pragma once

#include <optional>

#include "base/buffer.hpp"
#include "kernels/avx512/streams.hpp"
#include "kernels/avx512/tensors.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

// In the order of operations that Codec states, in Float. Remembers where it read last: made once per request.
template <class Float>
class FloatQuantizer {
 public:
  explicit FloatQuantizer(const Message& message)
      : message_(message), tensors_(message.tensors), reference_(message.reference) {
    if (message.codec->rounding == Rounding::kStochastic) rounding_.emplace(message.rounding);
  }

  template <class Int>
  void write(std::size_t first, std::size_t count, Int* out);

  // Says where the values of the next write() lie.
  void announce(std::size_t first, std::size_t count, Prefetcher& soon) {
    tensors_.announce(first, count, soon);
    if (message_.reference.count != 0) reference_.announce(first, count, soon);
  }

 private:
  // Quantised values of a run of differences from the reference, the first of them number `at`.
  template <bool kStochastic, class Int>
  void quantize(const ValueRun<Float>& run, std::size_t at, const std::uint32_t* words, Int* out);

  const Message message_;
  TensorReader<Float> tensors_, reference_;
  std::optional<PrivateWords> rounding_;  // where it is stochastic
  SecretBuffer<std::uint32_t> words_;
};

class Quantizer {
 public:
  explicit Quantizer(const Message& message);

  // Values [first, first + count) of the flat vector, zero past its end; int32 in single precision only.
  void write(std::size_t first, std::size_t count, std::int32_t* out);
  void write(std::size_t first, std::size_t count, std::int64_t* out);

  void announce(std::size_t first, std::size_t count, Prefetcher& soon);

 private:
  // One of them, as the codec's precision has it.
  std::optional<FloatQuantizer<float>> single_;
  std::optional<FloatQuantizer<double>> double_;
};

void quantize(const Message& message, std::size_t first, std::size_t count, std::int64_t* out);

}  // namespace pppml::kernels::avx512
