// The weights of a few blocks as the coefficients that the quantiser takes for a vector of weights.
#pragma once

#include "base/buffer.hpp"
#include "ckks/scheme.hpp"
#include "ckks/slot_codec.hpp"

namespace pppml::ckks {

class SlotMessages {
 public:
  // So many blocks at a time: their coefficients stay in the second-level cache until they are quantised.
  static constexpr std::size_t kBlocks = 4;

  using LoadValues = void (*)(const kernels::Message&, std::size_t first, std::size_t count, double* out);

  // `clip` is that of the weights.
  SlotMessages(const SlotCodec& codec, double clip, LoadValues load_values);

  // The coefficients of a batch of at most kBlocks blocks, not weighted yet, where they stand in the vector of all
  // coefficients; nothing else of it may be read. Valid until the next call.
  kernels::TensorList encode(const Plain& plain, const kernels::Batch& batch, kernels::QuantizeReport* report);

 private:
  const SlotCodec& codec_;
  kernels::Codec clipping_{};
  LoadValues load_values_;
  SecretBuffer<double> weights_, scratch_, coefficients_;
  kernels::TensorSpan spans_[2];
};

}  // namespace pppml::ckks
