#include "kernels/avx512/table.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/buffer.hpp"
#include "kernels/avx512/codec32.hpp"
#include "kernels/avx512/encryption32.hpp"
#include "kernels/avx512/expansion32.hpp"
#include "kernels/avx512/opening32.hpp"
#include "kernels/avx512/quantizer.hpp"
#include "kernels/avx512/streams.hpp"
#include "kernels/avx512/sums32.hpp"
#include "kernels/avx512/transform32.hpp"
#include "kernels/avx512/vaes.hpp"
#include "kernels/rows.hpp"
#include "kernels/scalar/fused.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Word = std::uint32_t;
using Ring32 = RingTable<Word>;

bool too_small(unsigned log_degree) {
  return log_degree < kSmallestLogDegree;
}

void checked_inverse_ntt(const Prime32& prime, unsigned log_degree, Word* values) {
  if (too_small(log_degree)) return scalar::table<Word>().inverse_ntt(prime, log_degree, values);
  inverse_ntt(prime, log_degree, values);
}

void checked_forward_ntt(const Prime32& prime, unsigned log_degree, Word* values) {
  if (too_small(log_degree)) return scalar::table<Word>().forward_ntt(prime, log_degree, values);
  forward_ntt(prime, log_degree, values);
}

// c0 + INTT(c1 * s), row by row; false on an invalid residue.
class PhaseMaker {
 public:
  explicit PhaseMaker(const OpenRequest<Word>& request)
      : request_(request),
        c0_(request.c0, unpack_row),
        c1_(request.c1, unpack_row),
        scratch_(request.ring->degree()),
        product_(request.ring->degree()) {
    const Ring32& ring = *request.ring;
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const std::size_t at = l * ring.degree();
      transforms_.push_back(std::make_unique<Transform32>(ring.primes[l], ring.log_degree));
      factors_.push_back(std::make_unique<ColumnFactor>(ring.primes[l], ring.degree(), request.secret.values + at,
                                                        request.secret.companions + at, false));
    }
  }

  bool write(std::size_t b, std::size_t l, Word* row) {
    const Ring32& ring = *request_.ring;
    const Prime32& prime = ring.primes[l];
    const Vector q = broadcast(prime.modulus);
    const std::size_t length = row_length(ring, request_.batch, b), degree = ring.degree();
    const Transform32& transform = *transforms_[l];
    const auto to_row = [&](std::size_t k, Vector v) { store(row + k, v); };
    if (request_.c1.given()) {
      const Word* c1 = c1_.next(prime, degree, scratch_.data());
      if (c1 == nullptr) return false;
      std::copy(c1, c1 + degree, row);
      Word* columns = scratch_.data();
      transform.forward(row, [&](std::size_t chunk, const Vector* x) {
        for (std::size_t w = 0; w < kLanes; ++w) store(columns + chunk * kChunk + w * kLanes, x[w]);
      });
      const auto source = [&](std::size_t chunk, Vector* x) {
        for (std::size_t w = 0; w < kLanes; ++w) x[w] = load(columns + chunk * kChunk + w * kLanes);
      };
      transform.inverse(*factors_[l], source, product_.data(), to_row);
    } else {
      const ExpandedColumns columns(prime, degree, request_.public_key, static_cast<std::uint32_t>(l),
                                    request_.batch.first_block + b);
      transform.inverse(*factors_[l], columns, product_.data(), to_row);
    }
    const Word* c0 = c0_.next(prime, length, scratch_.data());
    if (c0 == nullptr) return false;
    for_lanes(length, [&](std::size_t k, __mmask16 lanes) {
      _mm512_mask_storeu_epi32(row + k, lanes, add_mod(load_part(row + k, lanes), load_part(c0 + k, lanes), q));
    });
    return true;
  }

 private:
  const OpenRequest<Word>& request_;
  RowReader<Word> c0_, c1_;
  SecretBuffer<Word> scratch_, product_;
  std::vector<std::unique_ptr<Transform32>> transforms_;
  std::vector<std::unique_ptr<ColumnFactor>> factors_;
};

void open(const OpenRequest<Word>& request) {
  const Ring32& ring = *request.ring;
  if (too_small(ring.log_degree)) return scalar::table<Word>().open(request);
  SecretBuffer<Word> rows(ring.block_words());
  PhaseMaker phases(request);
  PhaseRounder rounder(request);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      if (!phases.write(b, l, rows.data() + l * ring.degree())) {
        request.report->invalid_residue = true;
        return;
      }
    }
    rounder.write(b, length, rows.data());
  }
}

KernelTable<Word> make_table() {
  KernelTable<Word> t = scalar::table<Word>();
  t.name = "avx512";
  t.private_cipher = vaes_supported() ? StreamCipher::kAes256 : StreamCipher::kChaCha20;
  t.forward_ntt = checked_forward_ntt;
  t.inverse_ntt = checked_inverse_ntt;
  t.stream = stream;
  t.uniform = uniform;
  t.gaussian = gaussian;
  t.ternary = ternary;
  t.quantize = quantize;
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
    t.quantize = quantize;
    return t;
  }();
  return kTable;
}

}  // namespace pppml::kernels::avx512
