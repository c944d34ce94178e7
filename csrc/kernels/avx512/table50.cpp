#include <algorithm>
#include <optional>

#include "base/buffer.hpp"
#include "kernels/avx512/floats.hpp"
#include "kernels/avx512/gaussian.hpp"
#include "kernels/avx512/ifma/ntt50.hpp"
#include "kernels/avx512/ifma/product50.hpp"
#include "kernels/avx512/opening50.hpp"
#include "kernels/avx512/packing50.hpp"
#include "kernels/avx512/quantizer.hpp"
#include "kernels/avx512/streams.hpp"
#include "kernels/avx512/table.hpp"
#include "kernels/avx512/tags.hpp"
#include "kernels/avx512/vaes.hpp"
#include "kernels/avx512/words64.hpp"
#include "kernels/rows.hpp"
#include "kernels/scalar/fused.hpp"
#include "kernels/scalar/opening.hpp"
#include "kernels/scalar/stream.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Word = std::uint64_t;
using Ring64 = RingTable<Word>;
using ifma::Prime64;

const KernelTable<Word>& portable() {
  return scalar::table<Word>();
}

bool declined(const Prime64& prime, unsigned log_degree) {
  return prime.bits > ifma::kMaxPrimeBits || log_degree < ifma::kMinLogDegree;
}

// Candidates of primes below 2^31 are 32-bit words, also where their residues are held in 64.
bool wide_candidates(const Prime64& prime) {
  return prime.bits > 31;
}

// What the fused operations below leave to the scalar code.
bool declined(const Ring64& ring) {
  const Prime64& prime = ring.primes[0];
  return ring.prime_count != 1 || declined(prime, ring.log_degree) || !wide_candidates(prime);
}

void forward_ntt(const Prime64& prime, unsigned log_degree, Word* values) {
  if (declined(prime, log_degree)) return portable().forward_ntt(prime, log_degree, values);
  ifma::forward_ntt(prime, log_degree, values);
}

void inverse_ntt(const Prime64& prime, unsigned log_degree, Word* values) {
  if (declined(prime, log_degree)) return portable().inverse_ntt(prime, log_degree, values);
  ifma::inverse_ntt(prime, log_degree, values);
}

void uniform(const Prime64& prime, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
             std::uint64_t block, Word* out) {
  if (declined(prime, log_degree) || !wide_candidates(prime)) {
    return scalar::uniform(prime, log_degree, key, selector, block, out);
  }
  ifma::uniform(prime, log_degree, key, selector, block, out);
}

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

void make_pads(const PadRequest<Word>& request, Word* out) {
  if (declined(*request.ring)) return portable().make_pads(request, out);
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
  if (declined(ring)) return portable().encrypt(pad_request, request);
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
  if (declined(ring)) return portable().encrypt_prepared(pads, request);
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

void encrypt_public(const PublicEncryptRequest<Word>& request) {
  const Ring64& ring = *request.message.ring;
  const Batch& batch = request.message.batch;
  if (declined(ring)) return portable().encrypt_public(request);
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

void add(const AddRequest<Word>& request) {
  const Ring64& ring = *request.ring;
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const __m512i q = broadcast64(ring.primes[l].modulus);
      const std::size_t start = block_offset(ring, b) + l * length;
      for_lanes<Word>(length, [&](std::size_t k, __mmask8 lanes) {
        __m512i sum = load_words(request.inputs[0] + start + k, lanes);
        for (std::size_t i = 1; i < request.count; ++i) {
          sum = reduce_words(_mm512_add_epi64(sum, load_words(request.inputs[i] + start + k, lanes)), q);
        }
        _mm512_mask_storeu_epi64(request.out + start + k, lanes, sum);
      });
    }
  }
}

bool hop(const HopRequest<Word>& request) {
  const Ring64& ring = *request.ring;
  SecretBuffer<Word> row(ring.degree());
  std::size_t at = 0;
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const Prime64& prime = ring.primes[l];
      const __m512i q = broadcast64(prime.modulus);
      const Word* mine = request.mine + block_offset(ring, b) + l * length;
      if (!unpack_row(prime, request.in + at, length, row.data())) return false;
      for_lanes<Word>(length, [&](std::size_t k, __mmask8 lanes) {
        const __m512i sum = _mm512_add_epi64(load_words(row.data() + k, lanes), load_words(mine + k, lanes));
        _mm512_mask_storeu_epi64(row.data() + k, lanes, reduce_words(sum, q));
      });
      pack_row(prime, row.data(), length, request.out + at);
      at += packed_row_bytes(prime, length);
    }
  }
  return true;
}

// INTT(c1 * s), block by block.
class Products {
 public:
  explicit Products(const OpenRequest<Word>& request)
      : request_(request), prime_(request.ring->primes[0]), c1_(request.c1, unpack_row) {
    if (!request.c1.given()) {
      product_.emplace(prime_, request.ring->log_degree, 0, request.secret, request.public_key);
    }
  }

  // Into `row`, in [0, 2 q); false on an invalid residue.
  bool write(std::size_t b, Word* row) {
    const std::size_t degree = request_.ring->degree();
    if (product_) {
      product_->write(request_.batch.first_block + b, row);
      return true;
    }
    const Word* c1 = c1_.next(prime_, degree, row);
    if (c1 == nullptr) return false;
    if (c1 != row) std::copy(c1, c1 + degree, row);
    ifma::forward_ntt(prime_, request_.ring->log_degree, row);
    ifma::multiply_and_invert(prime_, request_.ring->log_degree, request_.secret, row);
    return true;
  }

 private:
  const OpenRequest<Word>& request_;
  const Prime64& prime_;
  RowReader<Word> c1_;
  std::optional<ifma::ProductMaker> product_;
};

void open(const OpenRequest<Word>& request) {
  const Ring64& ring = *request.ring;
  if (declined(ring) || !rounds50(request)) return portable().open(request);
  SecretBuffer<Word> row(ring.degree()), scratch(ring.degree());
  SecretBuffer<std::int64_t> coefficients(ring.degree());
  Products products(request);
  RowReader<Word> c0_rows(request.c0, unpack_row);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    const Word* c0 = products.write(b, row.data()) ? c0_rows.next(ring.primes[0], length, scratch.data()) : nullptr;
    if (c0 == nullptr) {
      request.report->invalid_residue = true;
      return;
    }
    round_phases50(request, b, length, row.data(), c0, coefficients.data());
    store_values50(request.out, ring.degree() * request.out.values_per_coefficient, b, length, coefficients.data());
  }
}

void tag(const TagRequest<Word>& request) {
  for (unsigned l = 0; l < request.ring->prime_count; ++l) {
    if (request.ring->primes[l].bits > ifma::kMaxPrimeBits) return portable().tag(request);
  }
  tag50(request);
}

KernelTable<Word> make_table() {
  KernelTable<Word> t = portable();
  t.name = "avx512";
  t.private_cipher = vaes_supported() ? StreamCipher::kAes256 : StreamCipher::kChaCha20;
  t.stream = stream;
  t.gaussian = gaussian;
  t.ternary = ternary;
  t.quantize = quantize;
  t.pack_row = pack_row;
  t.unpack_row = unpack_row;
  t.add = add;
  t.hop = hop;
  if (__builtin_cpu_supports("avx512ifma") == 0) return t;
  t.forward_ntt = forward_ntt;
  t.inverse_ntt = inverse_ntt;
  t.uniform = uniform;
  t.make_pads = make_pads;
  t.encrypt = encrypt;
  t.encrypt_prepared = encrypt_prepared;
  t.encrypt_public = encrypt_public;
  t.open = open;
  t.tag = tag;
  return t;
}

}  // namespace

template <>
const KernelTable<Word>& table() {
  static const KernelTable<Word> kTable = make_table();
  return kTable;
}

}  // namespace pppml::kernels::avx512
