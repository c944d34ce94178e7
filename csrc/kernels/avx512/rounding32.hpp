// From the phases of one block to its values and its residual check.
#pragma once

#include "base/buffer.hpp"
#include "kernels/avx512/prefetcher.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

// Rounds the phases of every block of a request, made once for it.
class PhaseRounder {
 public:
  explicit PhaseRounder(const OpenRequest<std::uint32_t>& request);

  // rows: L rows of N residues, of which `length` count. Writes the values of block b and updates the report.
  void write(std::size_t b, std::size_t length, const std::uint32_t* rows);

  // Says where the values of block b go.
  void announce(std::size_t b, Prefetcher& soon) const {
    announce_values(request_.out, request_.ring->degree(), b, soon);
  }

 private:
  using Request = OpenRequest<std::uint32_t>;

  const Request& request_;
  void (*write_)(const Request&, std::size_t b, std::size_t length, const std::uint32_t* rows) = nullptr;
  SecretBuffer<std::int64_t> coefficients_;  // where the portable way is taken
};

}  // namespace pppml::kernels::avx512
