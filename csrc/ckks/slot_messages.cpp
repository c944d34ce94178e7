#include "ckks/slot_messages.hpp"

namespace pppml::ckks {

SlotMessages::SlotMessages(const SlotCodec& codec, double clip, LoadValues load_values)
    : codec_(codec),
      load_values_(load_values),
      weights_(codec.block_weights()),
      scratch_(codec.degree()),
      coefficients_(kBlocks * codec.degree()) {
  clipping_.clip = clip;
}

kernels::TensorList SlotMessages::encode(const Plain& plain, const kernels::Batch& batch,
                                         kernels::QuantizeReport* report) {
  const kernels::Message message{&clipping_, plain.tensors, plain.reference, {}, report};
  for (std::size_t b = 0; b < batch.blocks; ++b) {
    const std::uint64_t block = batch.first_block + b;
    load_values_(message, block * codec_.block_weights(), codec_.block_weights(), weights_.data());
    codec_.encode(weights_.data(), scratch_.data(), coefficients_.data() + b * codec_.degree());
  }
  // What stands before the batch is one element repeated: it is there to be counted.
  const std::size_t before = batch.first_block * codec_.degree(), count = batch.blocks * codec_.degree();
  spans_[0] = {coefficients_.data(), before, kernels::Dtype::kFloat64, 1, 0};
  spans_[1] = {coefficients_.data(), count, kernels::Dtype::kFloat64, count, count};
  return before == 0 ? kernels::TensorList{spans_ + 1, 1} : kernels::TensorList{spans_, 2};
}

}  // namespace pppml::ckks
