// Messages of any shape under one or two 31-bit primes.
#pragma once

#include "base/buffer.hpp"
#include "kernels/avx512/quantizer.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

// The message polynomials of a request as signed rows, ready to be added to noise.
class MessageEncoder {
 public:
  explicit MessageEncoder(const MessageRequest<std::uint32_t>& request);

  // Block b: L rows of N integers, of which row_length(b) are valid until the next call, zero where the tensors have
  // ended. scale() times one of row l is delta * m modulo prime l, and not much above half of it in magnitude.
  const std::int32_t* encode(std::size_t b);
  // Says where the values of block b lie, the next to be encoded.
  void announce(std::size_t b, Prefetcher& soon);
  std::int64_t scale() const { return simple_ ? request_.message.codec->delta : 1; }

 private:
  template <class Int>
  void compose(const Int* values, std::size_t length);

  const MessageRequest<std::uint32_t>& request_;
  bool simple_;  // what is quantised need not be composed: it is the message
  Quantizer quantizer_;
  SecretBuffer<std::int32_t> single_values_, rows_;
  SecretBuffer<std::int64_t> double_values_;
};

}  // namespace pppml::kernels::avx512
