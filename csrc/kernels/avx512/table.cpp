#include "kernels/avx512/table.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/buffer.hpp"
#include "base/modular.hpp"
#include "kernels/avx512/codec32.hpp"
#include "kernels/avx512/gaussian.hpp"
#include "kernels/avx512/ntt32.hpp"
#include "kernels/avx512/product.hpp"
#include "kernels/avx512/streams.hpp"
#include "kernels/messages.hpp"
#include "kernels/scalar/fused.hpp"
#include "kernels/scalar/opening.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Word = std::uint32_t;
using Ring32 = RingTable<Word>;

bool too_small(unsigned log_degree) {
  return log_degree < 8;
}

void scaled_inverse_ntt(const Prime32& prime, unsigned log_degree, Word* values) {
  if (too_small(log_degree)) return scalar::table<Word>().inverse_ntt(prime, log_degree, values);
  inverse_ntt_unscaled(prime, log_degree, values);
  const Vector w = broadcast(prime.inverse_degree), c = broadcast(prime.inverse_degree_companion);
  const Vector q = broadcast(prime.modulus);
  for (std::size_t k = 0; k < std::size_t{1} << log_degree; k += kLanes) {
    store(values + k, multiply_shoup(load(values + k), w, c, q));
  }
}

void checked_forward_ntt(const Prime32& prime, unsigned log_degree, Word* values) {
  if (too_small(log_degree)) return scalar::table<Word>().forward_ntt(prime, log_degree, values);
  forward_ntt(prime, log_degree, values);
}

void multiply_and_invert(const Ring32& ring, std::size_t l, const Multiplier<Word>& factor, Word* row) {
  const std::size_t degree = ring.degree();
  const Word* values = factor.values + l * degree;
  const Word* companions = factor.companions + l * degree;
  const Vector q = broadcast(ring.primes[l].modulus);
  for (std::size_t k = 0; k < degree; k += kLanes) {
    store(row + k, multiply_shoup(load(row + k), load(values + k), load(companions + k), q));
  }
  inverse_ntt_unscaled(ring.primes[l], ring.log_degree, row);
}

__mmask16 tail_mask(std::size_t left) {
  return static_cast<__mmask16>((std::uint32_t{1} << std::min(left, kLanes)) - 1);
}

// Applies `body(index, lanes)` to a row in steps of sixteen; the last step may be partial.
template <class Body>
inline void for_lanes(std::size_t count, Body body) {
  std::size_t k = 0;
  for (; k + kLanes <= count; k += kLanes) body(k, static_cast<__mmask16>(0xffff));
  if (k < count) body(k, tail_mask(count - k));
}

inline Vector load_part(const void* p, __mmask16 lanes) {
  return _mm512_maskz_loadu_epi32(lanes, p);
}

// Everything one block of pads needs; made once per request.
class PadMaker {
 public:
  explicit PadMaker(const PadRequest<Word>& request)
      : request_(request), sampler_(*request.error), row_(request.ring->degree()), error_(request.ring->degree()) {
    for (std::size_t l = 0; l < request.ring->prime_count; ++l) {
      products_.push_back(std::make_unique<ProductMaker>(*request.ring, l, request.secret, request.public_key));
    }
  }

  // Writes `length` residues per row of block b; `message` (delta * m, or null) is added while the row is at hand.
  void write(std::size_t b, std::size_t length, const std::int32_t* message, Word* out) {
    const Ring32& ring = *request_.ring;
    const std::uint64_t block = request_.batch.first_block + b;
    sampler_.sample_row(request_.noise, Lane::kError0, block, ring.degree(), error_.data());
    for (std::size_t l = 0; l < ring.prime_count; ++l, out += length) {
      products_[l]->write(block, row_.data());
      const Vector q = broadcast(ring.primes[l].modulus);
      for_lanes(length, [&](std::size_t k, __mmask16 lanes) {
        Vector small = load_part(error_.data() + k, lanes);
        if (message != nullptr) small = _mm512_add_epi32(small, load_part(message + k, lanes));
        const Vector residue = subtract_mod(from_signed(small, q), load_part(row_.data() + k, lanes), q);
        _mm512_mask_storeu_epi32(out + k, lanes, residue);
      });
    }
  }

 private:
  const PadRequest<Word>& request_;
  GaussianSampler sampler_;
  std::vector<std::unique_ptr<ProductMaker>> products_;
  SecretBuffer<Word> row_;
  SecretBuffer<std::int32_t> error_;
};

// Messages of one value per coefficient under a single prime stay within (-Q/2, Q/2), so they fit 32 bits with the
// error.
bool simple_message(const MessageRequest<Word>& request) {
  const Codec& codec = *request.message.codec;
  return codec.single_precision && codec.values_per_coefficient == 1 && request.ring->prime_count == 1;
}

// delta * m of block b as int32, zero where the tensors have ended.
void encode(const MessageRequest<Word>& request, std::size_t b, std::size_t length, std::int32_t* out) {
  const std::size_t first = (request.batch.first_block + b) * request.ring->degree();
  quantize32(request.message, first, length, out);
  const Vector delta = broadcast(static_cast<std::uint32_t>(request.message.codec->delta));
  for_lanes(length, [&](std::size_t k, __mmask16 lanes) {
    _mm512_mask_storeu_epi32(out + k, lanes, _mm512_mullo_epi32(load_part(out + k, lanes), delta));
  });
}

void make_pads(const PadRequest<Word>& request, Word* out) {
  if (too_small(request.ring->log_degree)) return scalar::table<Word>().make_pads(request, out);
  PadMaker pads(request);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    pads.write(b, row_length(*request.ring, request.batch, b), nullptr, out + block_offset(*request.ring, b));
  }
}

// Finished rows of a single prime, with what comes in added, to where they go.
class RowFinisher {
 public:
  explicit RowFinisher(const MessageRequest<Word>& request)
      : prime_(request.ring->primes[0]),
        adds_(request.incoming != nullptr),
        incoming_({nullptr, request.incoming}, unpack_row),
        out_(request.out, pack_row),
        row_(request.ring->degree()),
        scratch_(request.ring->degree()) {}

  Word* target() { return out_.target(row_.data()); }

  bool finish(std::size_t length, Word* row) {
    if (adds_) {
      const Word* incoming = incoming_.next(prime_, length, scratch_.data());
      if (incoming == nullptr) return false;
      const Vector q = broadcast(prime_.modulus);
      for_lanes(length, [&](std::size_t k, __mmask16 lanes) {
        const Vector sum = add_mod(load_part(row + k, lanes), load_part(incoming + k, lanes), q);
        _mm512_mask_storeu_epi32(row + k, lanes, sum);
      });
    }
    out_.finish(prime_, length, row);
    return true;
  }

 private:
  const Prime32& prime_;
  bool adds_;
  RowReader<Word> incoming_;
  RowWriter<Word> out_;
  SecretBuffer<Word> row_, scratch_;
};

bool encrypt_prepared(const Word* pads, const MessageRequest<Word>& request) {
  if (!simple_message(request)) return scalar::table<Word>().encrypt_prepared(pads, request);
  SecretBuffer<std::int32_t> message(request.ring->degree());
  RowFinisher finisher(request);
  const Vector q = broadcast(request.ring->primes[0].modulus);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(*request.ring, request.batch, b);
    const Word* pad = pads + block_offset(*request.ring, b);
    Word* row = finisher.target();
    encode(request, b, length, message.data());
    for_lanes(length, [&](std::size_t k, __mmask16 lanes) {
      const Vector residue = from_signed(load_part(message.data() + k, lanes), q);
      _mm512_mask_storeu_epi32(row + k, lanes, add_mod(load_part(pad + k, lanes), residue, q));
    });
    if (!finisher.finish(length, row)) return false;
  }
  return true;
}

bool encrypt(const PadRequest<Word>& pads, const MessageRequest<Word>& request) {
  const Ring32& ring = *pads.ring;
  if (too_small(ring.log_degree)) return scalar::table<Word>().encrypt(pads, request);
  PadMaker maker(pads);
  if (!simple_message(request)) {
    SecretBuffer<Word> pad(ring.block_words());
    MessageAdder<Word> messages(request, avx512::table<Word>());
    for (std::size_t b = 0; b < request.batch.blocks; ++b) {
      maker.write(b, row_length(ring, pads.batch, b), nullptr, pad.data());
      if (!messages.write(b, pad.data())) return false;
    }
    return true;
  }
  RowFinisher finisher(request);
  SecretBuffer<std::int32_t> encoded(ring.degree());
  for (std::size_t b = 0; b < pads.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, pads.batch, b);
    Word* row = finisher.target();
    encode(request, b, length, encoded.data());
    maker.write(b, length, encoded.data(), row);
    if (!finisher.finish(length, row)) return false;
  }
  return true;
}

void encrypt_public(const PublicEncryptRequest<Word>& request) {
  const Ring32& ring = *request.message.ring;
  const Batch& batch = request.message.batch;
  if (too_small(ring.log_degree)) return scalar::table<Word>().encrypt_public(request);
  const std::size_t degree = ring.degree();
  const GaussianSampler sampler(*request.error);
  MessageAdder<Word> messages(request.message, avx512::table<Word>());
  RowWriter<Word> out1(request.out1, pack_row);
  SecretBuffer<Word> ephemeral(degree), row(degree), base(ring.block_words());
  SecretBuffer<std::int32_t> draw(degree), error0(degree), error1(degree);
  for (std::size_t b = 0; b < batch.blocks; ++b) {
    const std::uint64_t block = batch.first_block + b;
    const std::size_t length = row_length(ring, batch, b);
    ternary(request.noise, Lane::kEphemeral, block, degree, draw.data());
    sampler.sample_row(request.noise, Lane::kError0, block, degree, error0.data());
    sampler.sample_row(request.noise, Lane::kError1, block, degree, error1.data());
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const Prime32& prime = ring.primes[l];
      const Vector q = broadcast(prime.modulus);
      for (std::size_t k = 0; k < degree; k += kLanes) {
        store(ephemeral.data() + k, from_signed(_mm512_loadu_si512(draw.data() + k), q));
      }
      forward_ntt(prime, ring.log_degree, ephemeral.data());
      const auto finish = [&](const Multiplier<Word>& factor, const std::int32_t* error, std::size_t count, Word* out) {
        std::copy(ephemeral.begin(), ephemeral.end(), row.begin());
        multiply_and_invert(ring, l, factor, row.data());
        for_lanes(count, [&](std::size_t k, __mmask16 lanes) {
          const Vector small = from_signed(load_part(error + k, lanes), q);
          _mm512_mask_storeu_epi32(out + k, lanes, add_mod(load_part(row.data() + k, lanes), small, q));
        });
      };
      finish(request.public0, error0.data(), length, base.data() + l * length);
      Word* second = out1.target(row.data());
      finish(request.public1, error1.data(), degree, second);
      out1.finish(prime, degree, second);
    }
    messages.write(b, base.data());
  }
}

void add(const AddRequest<Word>& request) {
  const Ring32& ring = *request.ring;
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const Vector q = broadcast(ring.primes[l].modulus);
      const std::size_t start = block_offset(ring, b) + l * length;
      for_lanes(length, [&](std::size_t k, __mmask16 lanes) {
        Vector sum = load_part(request.inputs[0] + start + k, lanes);
        for (std::size_t i = 1; i < request.count; ++i) {
          sum = add_mod(sum, load_part(request.inputs[i] + start + k, lanes), q);
        }
        _mm512_mask_storeu_epi32(request.out + start + k, lanes, sum);
      });
    }
  }
}

bool hop(const HopRequest<Word>& request) {
  const Ring32& ring = *request.ring;
  Buffer<Word> row(ring.degree());
  std::size_t at = 0;
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const Prime32& prime = ring.primes[l];
      const Vector q = broadcast(prime.modulus);
      const Word* mine = request.mine + block_offset(ring, b) + l * length;
      if (!unpack_row(prime, request.in + at, length, row.data())) return false;
      for_lanes(length, [&](std::size_t k, __mmask16 lanes) {
        const Vector sum = add_mod(load_part(row.data() + k, lanes), load_part(mine + k, lanes), q);
        _mm512_mask_storeu_epi32(row.data() + k, lanes, sum);
      });
      pack_row(prime, row.data(), length, request.out + at);
      at += (length * prime.bits + 7) / 8;
    }
  }
  return true;
}

// One prime, phases within 31 bits: the quotient by delta is estimated in float32 (off by at most one, since it stays
// below 2^23) and put right by its exact remainder.
void round_simple_phases(const OpenRequest<Word>& request, std::size_t b, std::size_t length, const Word* row,
                         std::int64_t* out) {
  const Word modulus = request.ring->primes[0].modulus;
  const auto delta_word = static_cast<std::uint32_t>(request.delta);
  const Vector q = broadcast(modulus), half_q = broadcast(modulus / 2), one = broadcast(1);
  const Vector delta = broadcast(delta_word), half = broadcast(delta_word / 2);
  const Vector negative_half = _mm512_sub_epi32(_mm512_setzero_si512(), half);
  const __m512 inverse = _mm512_set1_ps(1.0f / static_cast<float>(request.delta));
  Vector largest = _mm512_setzero_si512(), squares = _mm512_setzero_si512();
  for_lanes(length, [&](std::size_t k, __mmask16 lanes) {
    const Vector r = load_part(row + k, lanes);
    const Vector phase = _mm512_mask_sub_epi32(r, _mm512_cmpgt_epu32_mask(r, half_q), r, q);
    Vector m = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(phase), inverse));
    Vector residual = _mm512_sub_epi32(phase, _mm512_mullo_epi32(m, delta));
    const __mmask16 low = _mm512_cmpgt_epi32_mask(residual, half);
    const __mmask16 high = _mm512_cmplt_epi32_mask(residual, negative_half);
    m = _mm512_mask_add_epi32(m, low, m, one);
    m = _mm512_mask_sub_epi32(m, high, m, one);
    residual = _mm512_mask_sub_epi32(residual, low, residual, delta);
    residual = _mm512_mask_add_epi32(residual, high, residual, delta);
    largest = _mm512_max_epi32(largest, _mm512_abs_epi32(residual));
    const Vector odd = _mm512_srli_epi64(residual, 32);
    squares = _mm512_add_epi64(squares, _mm512_mul_epi32(residual, residual));
    squares = _mm512_add_epi64(squares, _mm512_mul_epi32(odd, odd));
    _mm512_mask_storeu_epi64(out + k, static_cast<__mmask8>(lanes), _mm512_cvtepi32_epi64(_mm512_castsi512_si256(m)));
    _mm512_mask_storeu_epi64(out + k + 8, static_cast<__mmask8>(lanes >> 8),
                             _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(m, 1)));
  });
  scalar::report_residuals(request.report, request.batch.first_block + b, _mm512_reduce_max_epi32(largest),
                           static_cast<double>(_mm512_reduce_add_epi64(squares)),
                           residual_limit(request.variance, length));
}

// c0 + INTT(c1 * s), row by row; false on an invalid residue.
class PhaseMaker {
 public:
  explicit PhaseMaker(const OpenRequest<Word>& request)
      : request_(request), c0_(request.c0, unpack_row), c1_(request.c1, unpack_row), scratch_(request.ring->degree()) {
    for (std::size_t l = 0; !request.c1.given() && l < request.ring->prime_count; ++l) {
      products_.push_back(std::make_unique<ProductMaker>(*request.ring, l, request.secret, request.public_key));
    }
  }

  bool write(std::size_t b, std::size_t l, Word* row) {
    const Ring32& ring = *request_.ring;
    const Prime32& prime = ring.primes[l];
    if (request_.c1.given()) {
      const Word* c1 = c1_.next(prime, ring.degree(), scratch_.data());
      if (c1 == nullptr) return false;
      std::copy(c1, c1 + ring.degree(), row);
      forward_ntt(prime, ring.log_degree, row);
      multiply_and_invert(ring, l, request_.secret, row);
    } else {
      products_[l]->write(request_.batch.first_block + b, row);
    }
    const std::size_t length = row_length(ring, request_.batch, b);
    const Word* c0 = c0_.next(prime, length, scratch_.data());
    if (c0 == nullptr) return false;
    const Vector q = broadcast(prime.modulus);
    for_lanes(length, [&](std::size_t k, __mmask16 lanes) {
      _mm512_mask_storeu_epi32(row + k, lanes, add_mod(load_part(row + k, lanes), load_part(c0 + k, lanes), q));
    });
    return true;
  }

 private:
  const OpenRequest<Word>& request_;
  RowReader<Word> c0_, c1_;
  SecretBuffer<Word> scratch_;
  std::vector<std::unique_ptr<ProductMaker>> products_;
};

void open(const OpenRequest<Word>& request) {
  const Ring32& ring = *request.ring;
  if (too_small(ring.log_degree)) return scalar::table<Word>().open(request);
  constexpr std::int64_t kLargestSum = std::int64_t{1} << 22;
  const bool simple =
      ring.prime_count == 1 && request.delta % 2 == 1 && ring.primes[0].modulus / request.delta < kLargestSum;
  SecretBuffer<Word> rows(ring.block_words());
  SecretBuffer<std::int64_t> coefficients(ring.degree());
  PhaseMaker phases(request);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      if (!phases.write(b, l, rows.data() + l * ring.degree())) {
        request.report->invalid_residue = true;
        return;
      }
    }
    if (simple) {
      round_simple_phases(request, b, length, rows.data(), coefficients.data());
    } else {
      scalar::round_phases(request, b, length, rows.data(), coefficients.data());
    }
    scalar::store_values(request.out, ring.degree() * request.out.values_per_coefficient, b, length,
                         coefficients.data());
  }
}

KernelTable<Word> make_table() {
  KernelTable<Word> t = scalar::table<Word>();
  t.name = "avx512";
  t.forward_ntt = checked_forward_ntt;
  t.inverse_ntt = scaled_inverse_ntt;
  t.stream = stream;
  t.uniform = uniform;
  t.gaussian = gaussian;
  t.ternary = ternary;
  t.pack_row = pack_row;
  t.unpack_row = unpack_row;
  t.make_pads = make_pads;
  t.encrypt = encrypt;
  t.encrypt_prepared = encrypt_prepared;
  t.encrypt_public = encrypt_public;
  t.add = add;
  t.hop = hop;
  t.open = open;
  return t;
}

}  // namespace

bool supported() {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
         __builtin_cpu_supports("avx512vbmi") != 0;
}

template <>
const KernelTable<std::uint32_t>& table() {
  static const KernelTable<std::uint32_t> kTable = make_table();
  return kTable;
}

template <>
const KernelTable<std::uint64_t>& table() {
  static const KernelTable<std::uint64_t> kTable = [] {
    KernelTable<std::uint64_t> t = scalar::table<std::uint64_t>();
    t.name = "avx512";
    return t;
  }();
  return kTable;
}

}  // namespace pppml::kernels::avx512
