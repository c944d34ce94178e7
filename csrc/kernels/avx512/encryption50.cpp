#include "kernels/avx512/encryption50.hpp"

#include <algorithm>

#include "base/buffer.hpp"
#include "kernels/avx512/floats.hpp"
#include "kernels/avx512/gaussian.hpp"
#include "kernels/avx512/ifma/ntt50.hpp"
#include "kernels/avx512/ifma/product50.hpp"
#include "kernels/avx512/packing50.hpp"
#include "kernels/avx512/quantizer.hpp"
#include "kernels/avx512/rings50.hpp"
#include "kernels/avx512/streams.hpp"
#include "kernels/avx512/table.hpp"
#include "kernels/avx512/words64.hpp"
#include "kernels/composed.hpp"
#include "kernels/rows.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Word = std::uint64_t;
using Ring64 = RingTable<Word>;
using ifma::Prime64;

// delta * m of one block after the other, for eight coefficients at a time.
class Messages {
 public:
  explicit Messages(const MessageRequest<Word>& request)
      : request_(request),
        count_(request.message.codec->values_per_coefficient),
        quantizer_(request.message),
        values_(codec().block_values) {
    __m512i scale = _mm512_set1_epi64(codec().delta);
    for (unsigned t = 0; t < count_; ++t, scale = _mm512_mullo_epi64(scale, _mm512_set1_epi64(codec().base))) {
      scales_[t] = scale;
    }
  }

  void read(std::size_t b, std::size_t length) {
    length_ = length;
    const std::size_t first = (request_.batch.first_block + b) * codec().block_values;
    quantizer_.write(first, count_ * length, values_.data());
  }

  __m512i at(std::size_t k, __mmask8 lanes) const {
    __m512i sum = _mm512_mullo_epi64(load_words(values_.data() + k, lanes), scales_[0]);
    for (unsigned t = 1; t < count_; ++t) {
      const __m512i value = load_words(values_.data() + t * length_ + k, lanes);
      sum = _mm512_add_epi64(sum, _mm512_mullo_epi64(value, scales_[t]));
    }
    return sum;
  }

 private:
  const Codec& codec() const { return *request_.message.codec; }

  const MessageRequest<Word>& request_;
  unsigned count_;
  std::size_t length_ = 0;
  __m512i scales_[3];
  Quantizer quantizer_;
  SecretBuffer<std::int64_t> values_;
};

// Finished rows, with what comes in added, to where they go.
class RowFinisher {
 public:
  RowFinisher(const Ring64& ring, const std::uint8_t* incoming, RowsOut<Word> out)
      : prime_(ring.primes[0]),
        adds_(incoming != nullptr),
        incoming_({nullptr, incoming}, unpack_row),
        out_(out, pack_row),
        row_(ring.degree()),
        scratch_(ring.degree()) {}

  // `residues(k, lanes)` gives eight of them in [0, 4 q). False on an invalid residue that came in.
  template <class Residues>
  bool write(std::size_t length, Residues residues) {
    const __m512i q = broadcast64(prime_.modulus), twice_q = broadcast64(2 * prime_.modulus);
    Word* row = out_.target(row_.data());
    if (adds_) {
      const Word* incoming = incoming_.next(prime_, length, scratch_.data());
      if (incoming == nullptr) return false;
      for_lanes<Word>(length, [&](std::size_t k, __mmask8 lanes) {
        const __m512i x = reduce_words(residues(k, lanes), twice_q);
        const __m512i sum = reduce_words(_mm512_add_epi64(x, load_words(incoming + k, lanes)), twice_q);
        _mm512_mask_storeu_epi64(row + k, lanes, reduce_words(sum, q));
      });
    } else {
      for_lanes<Word>(length, [&](std::size_t k, __mmask8 lanes) {
        _mm512_mask_storeu_epi64(row + k, lanes, reduce_words(reduce_words(residues(k, lanes), twice_q), q));
      });
    }
    out_.finish(prime_, length, row);
    return true;
  }

 private:
  const Prime64& prime_;
  bool adds_;
  RowReader<Word> incoming_;
  RowWriter<Word> out_;
  SecretBuffer<Word> row_, scratch_;
};

// error - INTT(a_j * s), block by block.
class Pads {
 public:
  explicit Pads(const PadRequest<Word>& request)
      : request_(request),
        words_(request.noise),
        sampler_(*request.error),
        product_(request.ring->primes[0], request.ring->log_degree, 0, request.secret, request.public_key),
        offset_(broadcast64(3 * request.ring->primes[0].modulus)),
        row_(request.ring->degree()),
        error_(request.ring->degree()) {}

  void make(std::size_t b) {
    const std::uint64_t block = request_.batch.first_block + b;
    sampler_.sample_row(words_, Lane::kError0, block, request_.ring->degree(), error_.data());
    product_.write(block, row_.data());
  }

  // Plus 3 q: in (q, 3 q] and as much more as the errors reach, so that a message below q / 2 leaves it in [0, 4 q).
  __m512i at(std::size_t k, __mmask8 lanes) const {
    const __m512i product = load_words(row_.data() + k, lanes);
    return _mm512_add_epi64(_mm512_sub_epi64(offset_, product), load_small(error_.data() + k, lanes));
  }

 private:
  const PadRequest<Word>& request_;
  PrivateWords words_;
  GaussianSampler sampler_;
  ifma::ProductMaker product_;
  __m512i offset_;
  SecretBuffer<Word> row_;
  SecretBuffer<std::int32_t> error_;
};

// INTT(pk * u) + e for both polynomials of a public key.
class PublicRows {
 public:
  explicit PublicRows(const PublicEncryptRequest<Word>& request)
      : ring_(*request.message.ring),
        words_(request.noise),
        sampler_(*request.error),
        q_(broadcast64(ring_.primes[0].modulus)),
        ephemeral_(ring_.degree()),
        row_(ring_.degree()),
        small_(ring_.degree()) {}

  // NTT form of u of one block
  void begin(std::uint64_t block) {
    ternary(words_, Lane::kEphemeral, block, ring_.degree(), small_.data());
    for_lanes<Word>(ring_.degree(), [&](std::size_t k, __mmask8 lanes) {
      const __m512i u = load_small(small_.data() + k, lanes);
      _mm512_storeu_si512(ephemeral_.data() + k, _mm512_min_epu64(u, _mm512_add_epi64(u, q_)));
    });
    ifma::forward_ntt(ring_.primes[0], ring_.log_degree, ephemeral_.data());
  }

  void make(std::uint64_t block, const Multiplier<Word>& factor, Lane error) {
    sampler_.sample_row(words_, error, block, ring_.degree(), small_.data());
    std::copy(ephemeral_.begin(), ephemeral_.end(), row_.begin());
    ifma::multiply_and_invert(ring_.primes[0], ring_.log_degree, factor, row_.data());
  }

  // Plus q: in [q, 3 q) but for the error.
  __m512i at(std::size_t k, __mmask8 lanes) const {
    const __m512i product = load_words(row_.data() + k, lanes);
    return _mm512_add_epi64(_mm512_add_epi64(product, q_), load_small(small_.data() + k, lanes));
  }

 private:
  const Ring64& ring_;
  PrivateWords words_;
  GaussianSampler sampler_;
  __m512i q_;
  SecretBuffer<Word> ephemeral_, row_;
  SecretBuffer<std::int32_t> small_;
};

}  // namespace

void make_pads(const PadRequest<Word>& request, Word* out) {
  if (declined(*request.ring)) return composed::make_pads<Word, table<Word>>(request, out);
  Pads pads(request);
  RowFinisher finisher(*request.ring, nullptr, {out, nullptr});
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    pads.make(b);
    const std::size_t length = row_length(*request.ring, request.batch, b);
    finisher.write(length, [&](std::size_t k, __mmask8 lanes) { return pads.at(k, lanes); });
  }
}

bool encrypt(const PadRequest<Word>& pad_request, const MessageRequest<Word>& request) {
  const Ring64& ring = *request.ring;
  if (declined(ring)) return composed::encrypt<Word, table<Word>>(pad_request, request);
  Pads pads(pad_request);
  Messages messages(request);
  RowFinisher finisher(ring, request.incoming, request.out);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    messages.read(b, length);
    pads.make(b);
    const bool valid = finisher.write(length, [&](std::size_t k, __mmask8 lanes) {
      return _mm512_add_epi64(pads.at(k, lanes), messages.at(k, lanes));
    });
    if (!valid) return false;
  }
  return true;
}

bool encrypt_prepared(const Word* pads, const MessageRequest<Word>& request) {
  const Ring64& ring = *request.ring;
  if (declined(ring)) return composed::encrypt_prepared<Word, table<Word>>(pads, request);
  Messages messages(request);
  RowFinisher finisher(ring, request.incoming, request.out);
  const __m512i q = broadcast64(ring.primes[0].modulus);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    const Word* pad = pads + block_offset(ring, b);
    messages.read(b, length);
    const bool valid = finisher.write(length, [&](std::size_t k, __mmask8 lanes) {
      return _mm512_add_epi64(_mm512_add_epi64(load_words(pad + k, lanes), q), messages.at(k, lanes));
    });
    if (!valid) return false;
  }
  return true;
}

void encrypt_public(const PublicEncryptRequest<Word>& request) {
  const Ring64& ring = *request.message.ring;
  const Batch& batch = request.message.batch;
  if (declined(ring)) return composed::encrypt_public<Word, table<Word>>(request);
  PublicRows rows(request);
  Messages messages(request.message);
  RowFinisher first(ring, nullptr, request.message.out), second(ring, nullptr, request.out1);
  for (std::size_t b = 0; b < batch.blocks; ++b) {
    const std::uint64_t block = batch.first_block + b;
    const std::size_t length = row_length(ring, batch, b);
    rows.begin(block);
    messages.read(b, length);
    rows.make(block, request.public0, Lane::kError0);
    first.write(length, [&](std::size_t k, __mmask8 lanes) {
      return _mm512_add_epi64(rows.at(k, lanes), messages.at(k, lanes));
    });
    rows.make(block, request.public1, Lane::kError1);
    second.write(ring.degree(), [&](std::size_t k, __mmask8 lanes) { return rows.at(k, lanes); });
  }
}

}  // namespace pppml::kernels::avx512
