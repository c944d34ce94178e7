#include "kernels/avx2/product.hpp"

#include "kernels/avx2/streams.hpp"

namespace pppml::kernels::avx2 {

std::vector<ColumnRoots> make_roots(const Ring32& ring, ColumnRoots::Direction direction) {
  std::vector<ColumnRoots> roots;
  roots.reserve(ring.prime_count);
  for (std::size_t l = 0; l < ring.prime_count; ++l) roots.emplace_back(ring.primes[l], ring.log_degree, direction);
  return roots;
}

ProductMaker::ProductMaker(const Ring32& ring, std::size_t l, const Multiplier<Word>& factor,
                           const ColumnRoots& inverse_roots)
    : prime_(ring.primes[l]),
      selector_(static_cast<std::uint32_t>(l)),
      roots_(inverse_roots),
      factor_(ring, l, factor),
      scratch_(kBatchWords) {}

void ProductMaker::expand_and_multiply(const std::uint8_t* key, std::uint64_t block, Word* out) {
  const UniformRow row(prime_, roots_.log_degree(), key, selector_, block);
  Word* chunk_words = scratch_.data();
  for (std::size_t chunk = 0; chunk < roots_.degree() / kBatchWords; ++chunk) {
    row.expand(chunk, chunk_words);
    multiply_and_invert_chunk(roots_, factor_, chunk, chunk_words, chunk_words, out + chunk * kBatchWords);
  }
  invert_above_chunks(roots_, out);
}

void ProductMaker::multiply(const Word* in, Word* out) {
  multiply_and_invert(roots_, factor_, in, scratch_.data(), out);
}

}  // namespace pppml::kernels::avx2
