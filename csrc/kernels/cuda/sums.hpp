// Sums of ciphertexts and the ways between words and packed bytes: as many steps as there is memory to move.
#pragma once

#include "kernels/cuda/arithmetic.hpp"
#include "kernels/cuda/bits.hpp"

namespace pppml::kernels::cuda {

// Block j of k ciphertexts. The words of a batch lie without gaps, and a thread takes sixteen bytes at a time where all
// of them are aligned to that.
template <class Shape, class Group>
PPPML_HD void sum_block(const Group& group, const SumRequest<Shape>& request) {
  using Word = typename Shape::Word;
  constexpr unsigned kWide = 16 / sizeof(Word);
  struct alignas(16) Wide {
    Word x[kWide];
  };
  const RowPlace<Shape> place(request.ring, request.batch, group.index());
  for (unsigned l = 0; l < Shape::kPrimes; ++l) {
    const Word q = request.ring.primes[l].modulus;
    const std::uint64_t start = place.words(l);
    const unsigned length = place.length();
    group.phase([&](unsigned thread) {
      std::uintptr_t offsets = reinterpret_cast<std::uintptr_t>(request.out + start);
      for (unsigned i = 0; i < request.count; ++i) {
        offsets |= reinterpret_cast<std::uintptr_t>(request.inputs[i] + start);
      }
      const unsigned wide = offsets % 16 == 0 ? length / kWide : 0;
      for (unsigned w = thread; w < wide; w += Shape::kThreads) {
        Wide sum = reinterpret_cast<const Wide*>(request.inputs[0] + start)[w];
        for (unsigned i = 1; i < request.count; ++i) {
          const Wide more = reinterpret_cast<const Wide*>(request.inputs[i] + start)[w];
          PPPML_UNROLL
          for (unsigned j = 0; j < kWide; ++j) sum.x[j] = add(sum.x[j], more.x[j], q);
        }
        reinterpret_cast<Wide*>(request.out + start)[w] = sum;
      }
      for (unsigned k = wide * kWide + thread; k < length; k += Shape::kThreads) {
        Word sum = request.inputs[0][start + k];
        for (unsigned i = 1; i < request.count; ++i) sum = add(sum, request.inputs[i][start + k], q);
        request.out[start + k] = sum;
      }
    });
  }
}

// Rows of block j from one form to another, plus `mine`. Shared memory: one row, since in and out may be the same.
template <class Shape, class Group>
PPPML_HD void move_block(const Group& group, const MoveRequest<Shape>& request, typename Shape::Word* row) {
  using Word = typename Shape::Word;
  const RowPlace<Shape> place(request.ring, request.batch, group.index());
  const unsigned length = place.length();
  for (unsigned l = 0; l < Shape::kPrimes; ++l) {
    const DevicePrime<Word>& prime = request.ring.primes[l];
    const PackedRow packed(request.in.packed + (request.in.packed == nullptr ? 0 : place.bytes(l)), prime.bits, length);
    group.phase([&](unsigned thread) {
      std::uint64_t invalid = 0;
      for (unsigned k = thread; k < length; k += Shape::kThreads) {
        Word residue =
            request.in.words != nullptr ? request.in.words[place.words(l) + k] : static_cast<Word>(packed[k]);
        if (residue >= prime.modulus) {
          residue = 0;
          ++invalid;
        }
        if (request.mine != nullptr) residue = add(residue, request.mine[place.words(l) + k], prime.modulus);
        row[k] = residue;
      }
      if (thread == 0 && request.in.packed != nullptr && !packed.padding_is_zero()) ++invalid;
      if (invalid != 0) atomic_add(&request.report->invalid_residues, invalid);
    });
    group.phase([&](unsigned thread) {
      if (request.out.words != nullptr) {
        for (unsigned k = thread; k < length; k += Shape::kThreads) request.out.words[place.words(l) + k] = row[k];
        return;
      }
      const PackedWriter writer(request.out.packed + place.bytes(l), prime.bits, length);
      for (unsigned w = thread; w < writer.words(); w += Shape::kThreads) {
        writer.write(w, [&](unsigned k) { return row[k]; });
      }
    });
  }
}

constexpr unsigned kWipeThreads = 256;
constexpr unsigned kWipeBlocks = 1024;

// Part `index` of kWipeBlocks of a wipe. Where nothing was refused it costs a look at the report.
template <class Group>
PPPML_HD void wipe_block(const Group& group, const WipeRequest& request) {
  group.phase([&](unsigned thread) {
    if (!request.report->refuses()) return;
    const std::uint64_t begin = group.index() * kWipeThreads + thread, step = kWipeBlocks * kWipeThreads;
    for (std::uint64_t at = begin; at < request.bytes; at += step) request.data[at] = 0;
    for (std::uint32_t s = 0; s < request.spans.count; ++s) {
      const DeviceSpan& span = request.spans.spans[s];
      const std::uint64_t items = request.spans.spans[s + 1].offset - span.offset;
      const unsigned width = span.dtype == Dtype::kFloat64 ? 8 : span.dtype == Dtype::kFloat32 ? 4 : 2;
      for (std::uint64_t at = begin; at < items * width; at += step) static_cast<std::uint8_t*>(span.data)[at] = 0;
    }
  });
}

}  // namespace pppml::kernels::cuda
