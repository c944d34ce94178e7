#include "kernels/avx512/opening32.hpp"

#include <algorithm>

#include "kernels/avx512/expansion32.hpp"
#include "kernels/avx512/finisher32.hpp"
#include "kernels/avx512/products32.hpp"
#include "kernels/avx512/rounding32.hpp"
#include "kernels/rows.hpp"
#include "kernels/scalar/fused.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Word = std::uint32_t;

// c0 + INTT(c1 * s), row by row.
class PhaseMaker {
 public:
  explicit PhaseMaker(const OpenRequest<Word>& request)
      : request_(request),
        products_(*request.ring, request.secret, false),
        finisher_(*request.ring, Order::kStrided, request.c0, {}),
        c1_(request.c1, unpack_row),
        copy_(request.ring->degree()),
        row_(request.ring->degree()) {}

  // Says what of c0 is read for the next block.
  void announce(Prefetcher& soon) const { finisher_.announce_input(*request_.ring, soon); }

  // Row l of block b; false on an invalid residue.
  bool write(std::size_t b, std::size_t l, Word* out, Prefetcher& soon) {
    const RingTable<Word>& ring = *request_.ring;
    const PrimeTable<Word>& prime = ring.primes[l];
    const Transform32& transform = products_.transform(l);
    const auto finish = [&](std::size_t k, Vector v) { finisher_.take(k, v); };
    finisher_.redirect(out);
    finisher_.begin(prime, ring.degree(), row_length(ring, request_.batch, b), nullptr, nullptr, 0);
    if (request_.c1.given()) {
      const Word* c1 = c1_.next(prime, ring.degree(), copy_.data());
      if (c1 == nullptr) return false;
      if (c1 != copy_.data()) std::copy(c1, c1 + ring.degree(), copy_.data());
      transform.forward_first(copy_.data());
      const auto source = [&](std::size_t chunk, Vector* x) { transform.forward_columns(chunk, copy_.data(), x); };
      transform.inverse(products_.factor(l), soon.before(source), row_.data(), finish);
    } else {
      const ExpandedColumns columns(prime, ring.degree(), request_.public_key, static_cast<std::uint32_t>(l),
                                    request_.batch.first_block + b);
      transform.inverse(products_.factor(l), soon.before(columns), row_.data(), finish);
    }
    return finisher_.end();
  }

 private:
  const OpenRequest<Word>& request_;
  Products products_;
  RowFinisher finisher_;
  RowReader<Word> c1_;
  SecretBuffer<Word> copy_, row_;
};

}  // namespace

void open(const OpenRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  if (ring.log_degree < kSmallestLogDegree) return scalar::table<Word>().open(request);
  SecretBuffer<Word> rows(ring.block_words());
  PhaseMaker phases(request);
  PhaseRounder rounder(request);
  Prefetcher soon(block_chunks(ring));
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    soon.restart();
    phases.announce(soon);
    rounder.announce(b, soon);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      if (!phases.write(b, l, rows.data() + l * ring.degree(), soon)) {
        request.report->invalid_residue = true;
        return;
      }
    }
    rounder.write(b, row_length(ring, request.batch, b), rows.data());
  }
}

}  // namespace pppml::kernels::avx512
