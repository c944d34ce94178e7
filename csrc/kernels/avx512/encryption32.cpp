#include "kernels/avx512/encryption32.hpp"

#include <algorithm>

#include "base/buffer.hpp"
#include "kernels/avx512/expansion32.hpp"
#include "kernels/avx512/finisher32.hpp"
#include "kernels/avx512/gaussian.hpp"
#include "kernels/avx512/messages32.hpp"
#include "kernels/avx512/products32.hpp"
#include "kernels/avx512/streams.hpp"
#include "kernels/scalar/fused.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Word = std::uint32_t;
using Ring32 = RingTable<Word>;

// The forward transform of a row, which is overwritten, as columns in memory.
__attribute__((noinline)) void to_columns(const Transform32& transform, Word* row, Word* columns) {
  transform.forward_first(row);
  for (std::size_t chunk = 0; chunk < transform.chunks(); ++chunk) {
    Vector x[kLanes];
    transform.forward_columns(chunk, row, x);
#pragma GCC unroll 16
    for (std::size_t w = 0; w < kLanes; ++w) store(columns + chunk * kChunk + w * kLanes, x[w]);
  }
}

// Everything a block of pads needs; made once per request.
class PadMaker {
 public:
  explicit PadMaker(const PadRequest<Word>& request)
      : request_(request),
        products_(*request.ring, request.secret, true),
        sampler_(*request.error),
        words_(request.noise),
        row_(request.ring->degree()),
        noise_(request.ring->degree()) {}

  // Block b onto L rows of N integers that count `scale` each, or none.
  bool write(std::size_t b, const std::int32_t* message, std::int64_t scale, RowFinisher& out, Prefetcher& soon) {
    const Ring32& ring = *request_.ring;
    const std::uint64_t block = request_.batch.first_block + b;
    const std::size_t length = row_length(ring, request_.batch, b);
    sampler_.sample_row(words_, Lane::kError0, block, ring.degree(), noise_.data());
    bool valid = true;
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const ExpandedColumns columns(ring.primes[l], ring.degree(), request_.public_key, static_cast<std::uint32_t>(l),
                                    block);
      out.begin(ring.primes[l], ring.degree(), length, noise_.data(), message, scale);
      const Transform32& transform = products_.transform(l);
      transform.inverse(products_.factor(l), soon.before(columns), row_.data(),
                        [&](std::size_t k, Vector v) { out.take(k, v); });
      valid &= out.end();
      if (message != nullptr) message += ring.degree();
    }
    return valid;
  }

 private:
  const PadRequest<Word>& request_;
  Products products_;
  GaussianSampler sampler_;
  PrivateWords words_;
  SecretBuffer<Word> row_;
  SecretBuffer<std::int32_t> noise_;
};

}  // namespace

void make_pads(const PadRequest<Word>& request, Word* out) {
  if (request.ring->log_degree < kSmallestLogDegree) return scalar::table<Word>().make_pads(request, out);
  PadMaker pads(request);
  RowFinisher rows(*request.ring, Order::kStrided, {}, {out, nullptr});
  rows.expect(*request.ring, request.batch.blocks);
  Prefetcher soon(block_chunks(*request.ring));
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    soon.restart();
    rows.announce(*request.ring, soon);
    pads.write(b, nullptr, 0, rows, soon);
  }
}

bool encrypt(const PadRequest<Word>& pads, const MessageRequest<Word>& request) {
  const Ring32& ring = *pads.ring;
  if (ring.log_degree < kSmallestLogDegree) return scalar::table<Word>().encrypt(pads, request);
  PadMaker maker(pads);
  MessageEncoder messages(request);
  RowFinisher rows(ring, Order::kStrided, {nullptr, request.incoming}, request.out);
  rows.expect(ring, request.batch.blocks);
  Prefetcher soon(block_chunks(ring));
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::int32_t* message = messages.encode(b);
    soon.restart();
    rows.announce(ring, soon);
    messages.announce(b + 1, soon);
    if (!maker.write(b, message, messages.scale(), rows, soon)) return false;
  }
  return true;
}

bool encrypt_prepared(const Word* pads, const MessageRequest<Word>& request) {
  const Ring32& ring = *request.ring;
  if (ring.log_degree < kSmallestLogDegree) return scalar::table<Word>().encrypt_prepared(pads, request);
  const std::size_t degree = ring.degree();
  MessageEncoder messages(request);
  SecretBuffer<Word> last(degree);
  RowFinisher rows(ring, Order::kAscending, {nullptr, request.incoming}, request.out);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    const std::int32_t* message = messages.encode(b);
    for (std::size_t l = 0; l < ring.prime_count; ++l, message += degree) {
      const Word* pad = pads + block_offset(ring, b) + l * length;
      if (length < degree) {
        std::copy(pad, pad + length, last.data());
        pad = last.data();
      }
      rows.begin(ring.primes[l], degree, length, nullptr, message, messages.scale());
      for (std::size_t k = 0; k < length; k += kLanes) rows.take(k, load(pad + k));
      if (!rows.end()) return false;
    }
  }
  return true;
}

void encrypt_public(const PublicEncryptRequest<Word>& request) {
  const Ring32& ring = *request.message.ring;
  const Batch& batch = request.message.batch;
  if (ring.log_degree < kSmallestLogDegree) return scalar::table<Word>().encrypt_public(request);
  const std::size_t degree = ring.degree();
  const Products first(ring, request.public0, false), second(ring, request.public1, false);
  const GaussianSampler sampler(*request.error);
  const PrivateWords words(request.noise);
  SecretBuffer<Word> ephemeral(degree), columns(degree), row(degree);
  SecretBuffer<std::int32_t> draw(degree), noise0(degree), noise1(degree);
  MessageEncoder messages(request.message);
  RowFinisher out0(ring, Order::kStrided, {}, request.message.out), out1(ring, Order::kStrided, {}, request.out1);
  Prefetcher soon(2 * block_chunks(ring));
  for (std::size_t b = 0; b < batch.blocks; ++b) {
    const std::uint64_t block = batch.first_block + b;
    const std::size_t length = row_length(ring, batch, b);
    ternary(words, Lane::kEphemeral, block, degree, draw.data());
    sampler.sample_row(words, Lane::kError0, block, degree, noise0.data());
    sampler.sample_row(words, Lane::kError1, block, degree, noise1.data());
    const std::int32_t* message = messages.encode(b);
    soon.restart();
    out0.announce(ring, soon);
    out1.announce(ring, soon);
    messages.announce(b + 1, soon);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const Prime32& prime = ring.primes[l];
      const Vector q = broadcast(prime.modulus);
      for (std::size_t k = 0; k < degree; k += kLanes) {
        store(ephemeral.data() + k, from_signed(_mm512_loadu_si512(draw.data() + k), q));
      }
      to_columns(first.transform(l), ephemeral.data(), columns.data());
      const auto multiply = [&](const Products& products, RowFinisher& rows) {
        const auto source = [&](std::size_t chunk, Vector* x) {
          for (std::size_t w = 0; w < kLanes; ++w) x[w] = load(columns.data() + chunk * kChunk + w * kLanes);
        };
        products.transform(l).inverse(products.factor(l), soon.before(source), row.data(),
                                      [&](std::size_t k, Vector v) { rows.take(k, v); });
        rows.end();
      };
      out0.begin(prime, degree, length, noise0.data(), message + l * degree, messages.scale());
      multiply(first, out0);
      out1.begin(prime, degree, degree, noise1.data(), nullptr, 0);
      multiply(second, out1);
    }
  }
}

}  // namespace pppml::kernels::avx512
