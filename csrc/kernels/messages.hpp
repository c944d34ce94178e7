// Messages of any shape, any ring: the plain way, on which backends fall back.
#pragma once

#include <algorithm>

#include "base/buffer.hpp"
#include "base/modular.hpp"
#include "kernels/rows.hpp"

namespace pppml::kernels {
PPPML_ISA_BEGIN

// out[k] += small[k] mod q for a signed integer vector
template <class Word, class Int>
void add_signed(const PrimeTable<Word>& prime, const Int* small, std::size_t count, Word* out) {
  for (std::size_t k = 0; k < count; ++k) {
    const Word residue = reduce_signed<Word>(small[k], prime.modulus, prime.ratio, prime.lift);
    out[k] = add_mod(out[k], residue, prime.modulus);
  }
}

// Messages of one batch, block by block, onto rows that hold something else already.
template <class Word>
class MessageAdder {
 public:
  // `kernels` gives the quantiser and the packing.
  MessageAdder(const MessageRequest<Word>& request, const KernelTable<Word>& kernels)
      : request_(request),
        kernels_(kernels),
        incoming_({nullptr, request.incoming}, kernels.unpack_row),
        out_(request.out, kernels.pack_row),
        values_(request.message.codec->block_values),
        message_(request.ring->degree()),
        row_(request.ring->degree()),
        scratch_(request.ring->degree()) {}

  // Block b: base, rows without gaps, plus what comes in plus the message. False on an invalid residue that came in.
  bool write(std::size_t b, const Word* base) {
    const RingTable<Word>& ring = *request_.ring;
    const std::size_t length = row_length(ring, request_.batch, b);
    encode(request_.batch.first_block + b, length);
    for (std::size_t l = 0; l < ring.prime_count; ++l, base += length) {
      const PrimeTable<Word>& prime = ring.primes[l];
      Word* row = row_.data();
      std::copy(base, base + length, row);
      add_signed(prime, message_.data(), length, row);
      if (request_.incoming != nullptr) {
        const Word* incoming = incoming_.next(prime, length, scratch_.data());
        if (incoming == nullptr) return false;
        for (std::size_t k = 0; k < length; ++k) row[k] = add_mod(row[k], incoming[k], prime.modulus);
      }
      Word* target = out_.target(row);
      if (target != row) std::copy(row, row + length, target);
      out_.finish(prime, length, target);
    }
    return true;
  }

 private:
  // Message coefficients of one block, already times delta; zero where the tensors have ended.
  void encode(std::uint64_t block, std::size_t length) {
    const Codec& codec = *request_.message.codec;
    const std::size_t per_coefficient = codec.values_per_coefficient;
    kernels_.quantize(request_.message, block * codec.block_values, length * per_coefficient, values_.data());
    for (std::size_t k = 0; k < length; ++k) {
      std::int64_t m = 0;
      for (std::size_t t = per_coefficient; t-- > 0;) m = m * codec.base + values_[t * length + k];
      message_[k] = m * codec.delta;
    }
  }

  const MessageRequest<Word>& request_;
  const KernelTable<Word>& kernels_;
  RowReader<Word> incoming_;
  RowWriter<Word> out_;
  SecretBuffer<std::int64_t> values_, message_;
  SecretBuffer<Word> row_, scratch_;
};

PPPML_ISA_END
}  // namespace pppml::kernels
