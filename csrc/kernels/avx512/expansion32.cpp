#include "kernels/avx512/expansion32.hpp"

#include "kernels/scalar/stream.hpp"

namespace pppml::kernels::avx512 {

void ExpandedColumns::redraw(std::size_t chunk, Vector* x) const {
  std::uint32_t words[kChunk];
  for (std::size_t w = 0; w < kLanes; ++w) store(words + kLanes * w, x[w]);
  for (std::size_t i = 0; i < kChunk; ++i) {
    const std::size_t k = chunk * kChunk + i % kLanes * kLanes + i / kLanes;
    for (std::uint64_t attempt = 1; words[i] >= prime_.modulus; ++attempt) {
      scalar::stream({key_, StreamCipher::kChaCha20}, selector_, block_, attempt * degree_ + k, 1, words + i);
      words[i] &= (std::uint32_t{1} << prime_.bits) - 1;
    }
  }
  for (std::size_t w = 0; w < kLanes; ++w) x[w] = load(words + kLanes * w);
}

void uniform(const Prime32& prime, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
             std::uint64_t block, std::uint32_t* out) {
  if (log_degree < kSmallestLogDegree) {
    scalar::uniform(prime, log_degree, key, selector, block, out);
    return;
  }
  const std::size_t degree = std::size_t{1} << log_degree;
  const ExpandedColumns columns(prime, degree, key, selector, block);
  for (std::size_t chunk = 0; chunk < degree / kChunk; ++chunk) {
    Vector x[kLanes];
    columns(chunk, x);
    transpose(x);
    for (std::size_t i = 0; i < kLanes; ++i) store(out + chunk * kChunk + kLanes * i, x[i]);
  }
}

}  // namespace pppml::kernels::avx512
