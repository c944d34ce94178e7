#include "kernels/avx2/encrypt.hpp"

#include <optional>

#include "kernels/avx2/codec32.hpp"
#include "kernels/avx2/product.hpp"
#include "kernels/avx2/streams.hpp"
#include "kernels/avx2/table.hpp"
#include "kernels/messages.hpp"
#include "kernels/scalar/fused.hpp"

namespace pppml::kernels::avx2 {
namespace {

bool too_small(const Ring32& ring) {
  return ring.log_degree < kSmallestLogDegree;
}

// What one block of pads takes; made once per request.
class PadMaker {
 public:
  explicit PadMaker(const PadRequest<Word>& request)
      : request_(request),
        noise_(request.noise),
        sampler_(*request.error),
        roots_(make_roots(*request.ring, ColumnRoots::Direction::kInverse)),
        row_(request.ring->degree()),
        error_(request.ring->degree()) {
    products_.reserve(roots_.size());
    for (std::size_t l = 0; l < roots_.size(); ++l) {
      products_.emplace_back(*request.ring, l, request.secret, roots_[l]);
    }
  }

  // The rows of block b without gaps.
  void write(std::size_t b, Word* out) {
    const Ring32& ring = *request_.ring;
    const std::uint64_t block = request_.batch.first_block + b;
    const std::size_t length = row_length(ring, request_.batch, b);
    sampler_.sample_row(noise_, Lane::kError0, block, ring.degree(), error_.data());
    for (std::size_t l = 0; l < ring.prime_count; ++l, out += length) {
      products_[l].expand_and_multiply(request_.public_key, block, row_.data());
      const Vector q = roots_[l].modulus();
      for_lanes(length, [&](std::size_t k, auto lanes) {
        const Vector error = from_signed(load(error_.data() + k, lanes), q);
        store(out + k, lanes, subtract_mod(error, load(row_.data() + k, lanes), q));
      });
    }
  }

 private:
  const PadRequest<Word>& request_;
  NoiseSource noise_;
  GaussianSampler sampler_;
  std::vector<ColumnRoots> roots_;
  std::vector<ProductMaker> products_;
  SecretBuffer<Word> row_;
  SecretBuffer<std::int32_t> error_;
};

// Messages of one value per coefficient under a single prime: delta * m lies within (-Q/2, Q/2) and so in 32 bits.
class SimpleMessages {
 public:
  static bool fit(const MessageRequest<Word>& request) {
    const Codec& codec = *request.message.codec;
    return codec.single_precision && codec.values_per_coefficient == 1 && request.ring->prime_count == 1;
  }

  explicit SimpleMessages(const MessageRequest<Word>& request)
      : request_(request),
        incoming_({nullptr, request.incoming}, unpack_row),
        out_(request.out, pack_row),
        message_(request.ring->degree()),
        row_(request.ring->degree()),
        scratch_(request.ring->degree()) {}

  bool write(std::size_t b, const Word* base) {
    const Prime32& prime = request_.ring->primes[0];
    const std::size_t length = row_length(*request_.ring, request_.batch, b);
    quantize32(request_.message, (request_.batch.first_block + b) * request_.ring->degree(), length, message_.data());
    const Word* incoming = nullptr;
    if (request_.incoming != nullptr) {
      incoming = incoming_.next(prime, length, scratch_.data());
      if (incoming == nullptr) return false;
    }
    Word* row = out_.target(row_.data());
    const Vector q = broadcast(prime.modulus);
    const Vector delta = broadcast(static_cast<std::uint32_t>(request_.message.codec->delta));
    for_lanes(length, [&](std::size_t k, auto lanes) {
      const Vector message = from_signed(_mm256_mullo_epi32(load(message_.data() + k, lanes), delta), q);
      Vector sum = add_mod(load(base + k, lanes), message, q);
      if (incoming != nullptr) sum = add_mod(sum, load(incoming + k, lanes), q);
      store(row + k, lanes, sum);
    });
    out_.finish(prime, length, row);
    return true;
  }

 private:
  const MessageRequest<Word>& request_;
  RowReader<Word> incoming_;
  RowWriter<Word> out_;
  SecretBuffer<std::int32_t> message_;
  SecretBuffer<Word> row_, scratch_;
};

// Messages of one batch, block by block, onto rows that hold something else already.
class Messages {
 public:
  explicit Messages(const MessageRequest<Word>& request) {
    if (SimpleMessages::fit(request)) {
      simple_.emplace(request);
    } else {
      other_.emplace(request, table<Word>());
    }
  }

  // Block b: base, rows without gaps, plus what comes in plus the message. False on an invalid residue that came in.
  bool write(std::size_t b, const Word* base) { return simple_ ? simple_->write(b, base) : other_->write(b, base); }

 private:
  std::optional<SimpleMessages> simple_;
  std::optional<MessageAdder<Word>> other_;
};

}  // namespace

void make_pads(const PadRequest<Word>& request, Word* out) {
  if (too_small(*request.ring)) return scalar::table<Word>().make_pads(request, out);
  PadMaker pads(request);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) pads.write(b, out + block_offset(*request.ring, b));
}

bool encrypt_prepared(const Word* pads, const MessageRequest<Word>& request) {
  Messages messages(request);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    if (!messages.write(b, pads + block_offset(*request.ring, b))) return false;
  }
  return true;
}

bool encrypt(const PadRequest<Word>& pads, const MessageRequest<Word>& request) {
  if (too_small(*pads.ring)) return scalar::table<Word>().encrypt(pads, request);
  PadMaker maker(pads);
  Messages messages(request);
  SecretBuffer<Word> pad(pads.ring->block_words());
  for (std::size_t b = 0; b < pads.batch.blocks; ++b) {
    maker.write(b, pad.data());
    if (!messages.write(b, pad.data())) return false;
  }
  return true;
}

void encrypt_public(const PublicEncryptRequest<Word>& request) {
  const Ring32& ring = *request.message.ring;
  const Batch& batch = request.message.batch;
  if (too_small(ring)) return scalar::table<Word>().encrypt_public(request);
  const std::size_t degree = ring.degree();
  const NoiseSource noise(request.noise);
  const GaussianSampler sampler(*request.error);
  const std::vector<ColumnRoots> forward = make_roots(ring, ColumnRoots::Direction::kForward);
  const std::vector<ColumnRoots> inverse = make_roots(ring, ColumnRoots::Direction::kInverse);
  std::vector<ProductMaker> products0, products1;
  products0.reserve(ring.prime_count);
  products1.reserve(ring.prime_count);
  for (std::size_t l = 0; l < ring.prime_count; ++l) {
    products0.emplace_back(ring, l, request.public0, inverse[l]);
    products1.emplace_back(ring, l, request.public1, inverse[l]);
  }
  Messages messages(request.message);
  RowWriter<Word> out1(request.out1, pack_row);
  SecretBuffer<Word> ephemeral(degree), row(degree), base(ring.block_words());
  SecretBuffer<std::int32_t> draw(degree), error0(degree), error1(degree);
  for (std::size_t b = 0; b < batch.blocks; ++b) {
    const std::uint64_t block = batch.first_block + b;
    const std::size_t length = row_length(ring, batch, b);
    noise.ternary(Lane::kEphemeral, block, degree, draw.data());
    sampler.sample_row(noise, Lane::kError0, block, degree, error0.data());
    sampler.sample_row(noise, Lane::kError1, block, degree, error1.data());
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const Vector q = inverse[l].modulus();
      for (std::size_t k = 0; k < degree; k += kLanes) {
        store(ephemeral.data() + k, from_signed(load(draw.data() + k), q));
      }
      forward_to_columns(forward[l], ephemeral.data());
      const auto finish = [&](ProductMaker& product, const std::int32_t* error, std::size_t count, Word* out) {
        product.multiply(ephemeral.data(), row.data());
        for_lanes(count, [&](std::size_t k, auto lanes) {
          store(out + k, lanes, add_mod(load(row.data() + k, lanes), from_signed(load(error + k, lanes), q), q));
        });
      };
      finish(products0[l], error0.data(), length, base.data() + l * length);
      Word* second = out1.target(row.data());
      finish(products1[l], error1.data(), degree, second);
      out1.finish(ring.primes[l], degree, second);
    }
    messages.write(b, base.data());
  }
}

}  // namespace pppml::kernels::avx2
