// Work on the blocks of a range, split over threads. Included by the scheme_*.cpp files only.
#pragma once

#include <algorithm>
#include <mutex>

#include "base/buffer.hpp"
#include "base/parallel.hpp"
#include "ckks/scheme_impl.hpp"

namespace pppml::ckks {

using kernels::Batch;
using kernels::OpenReport;
using kernels::QuantizeReport;

// Fewer blocks than this are not worth a thread: sixteen take some 100 microseconds, starting one some 20.
constexpr std::size_t kBlocksPerThread = 16;

// Blocks [begin, end) of a batch.
inline Batch blocks_of(const Batch& whole, std::size_t begin, std::size_t end, std::size_t degree) {
  return {whole.first_block + begin, end - begin, end == whole.blocks ? whole.last_length : degree};
}

// body(part, begin): `part` is the batch of blocks [begin, ...) of `whole`. It leaves nothing on its thread's stack.
template <class Body>
void over_blocks(const Batch& whole, std::size_t degree, Body body) {
  parallel_for(whole.blocks, kBlocksPerThread, [&](std::size_t begin, std::size_t end) {
    body(blocks_of(whole, begin, end, degree), begin);
    wipe_stack();
  });
}

// Reports of the threads of one call, brought together.
class Reports {
 public:
  void merge(const QuantizeReport& part) {
    const std::lock_guard<std::mutex> lock(mutex_);
    quantized.clipped += part.clipped;
    quantized.first_non_finite = std::min(quantized.first_non_finite, part.first_non_finite);
  }

  void merge(const OpenReport& part) {
    const std::lock_guard<std::mutex> lock(mutex_);
    opened.invalid_residue |= part.invalid_residue;
    opened.largest_residual = std::max(opened.largest_residual, part.largest_residual);
    if (!part.block_refused) return;
    opened.worst_block = opened.block_refused ? std::min(opened.worst_block, part.worst_block) : part.worst_block;
    opened.block_refused = true;
  }

  QuantizeReport quantized;
  OpenReport opened;

 private:
  std::mutex mutex_;
};

// body(piece, b): a part in pieces of at most `blocks` blocks, one after the other; `b` counts blocks of the part.
template <class Body>
void over_pieces(const Batch& part, std::size_t blocks, std::size_t degree, Body body) {
  for (std::size_t b = 0; b < part.blocks; b += blocks) {
    body(blocks_of(part, b, std::min(b + blocks, part.blocks), degree), b);
  }
}

}  // namespace pppml::ckks
