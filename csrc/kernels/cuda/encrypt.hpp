// Encryption of one block, fused: weights in, wire-ready residues out.
#pragma once

#include "kernels/cuda/message.hpp"

namespace pppml::kernels::cuda {

// out = incoming - INTT(a_j s) + e_j + delta m_j.
template <class Shape, class Group>
PPPML_HD void encrypt_block(const Group& group, const EncryptRequest<Shape>& request, State<Shape>& state) {
  BlockMessage<Shape, Group> message(group, request, state);
  typename Group::template Local<Residues<Shape>> held[Shape::kPrimes];
  group.phase([&](unsigned thread) {
    if (thread == 0) clear_findings(state);
  });
  group.phase([&](unsigned thread) { message.find_spans(thread); });
  PPPML_UNROLL
  for (unsigned l = 0; l < Shape::kPrimes; ++l) {
    const UniformJobs<Shape> uniform(request.ring.primes[l], request.public_key, l, message.block());
    if (l == 0) {
      sample_rows<Shape>(group, &uniform, request.error, *request.noise_key, Lane::kError0, message.block(), state);
    } else {
      sample_uniform<Shape>(group, uniform, state);
    }
    const RowTransform<Shape, Group> transform(group, request.ring.primes[l], state.row);
    transform.multiply_and_invert(request.secret + l * Shape::kDegree, held[l]);
  }
  message.quantize();
  PPPML_UNROLL
  for (unsigned l = 0; l < Shape::kPrimes; ++l) message.finish(l, held[l], true);
  message.finish_block();
}

// Shared memory of public-key encryption: the ephemeral polynomial as well.
template <class Shape>
struct PublicState {
  State<Shape> state;
  SmallRow<Shape> ephemeral;
};

// c0 = INTT(pk0 u) + e0 + delta m, c1 = INTT(pk1 u) + e1; c1 is never cut.
template <class Shape, class Group>
PPPML_HD void encrypt_public_block(const Group& group, const PublicRequest<Shape>& request,
                                   PublicState<Shape>& shared) {
  using Word = typename Shape::Word;
  const EncryptRequest<Shape>& first = request.message;
  State<Shape>& state = shared.state;
  BlockMessage<Shape, Group> message(group, first, state);
  Batch whole = first.batch;
  whole.last_length = Shape::kDegree;
  const RowPlace<Shape> place1(first.ring, whole, group.index());
  typename Group::template Local<Residues<Shape>> held[Shape::kPrimes];
  group.phase([&](unsigned thread) {
    if (thread == 0) clear_findings(state);
    if (thread < SmallRow<Shape>::kJobs) {
      ternary_job<Shape>(*first.noise_key, Lane::kEphemeral, message.block(), thread, shared.ephemeral);
    }
  });
  group.phase([&](unsigned thread) { message.find_spans(thread); });
  for (unsigned part = 0; part < 2; ++part) {
    const Factor<Word>* factor = part == 0 ? first.secret : request.public1;
    sample_rows<Shape>(group, nullptr, first.error, *first.noise_key, part == 0 ? Lane::kError0 : Lane::kError1,
                       message.block(), state);
    PPPML_UNROLL
    for (unsigned l = 0; l < Shape::kPrimes; ++l) {
      const DevicePrime<Word>& prime = first.ring.primes[l];
      group.phase([&](unsigned thread) {
        PPPML_UNROLL
        for (unsigned i = 0; i < Shape::kPerThread; ++i) {
          held[l][thread].x[i] = small_residue<Word>(shared.ephemeral.at(thread + i * Shape::kThreads), prime.modulus);
        }
      });
      RowTransform<Shape, Group>(group, prime, state.row).convolve(factor + l * Shape::kDegree, held[l]);
    }
    if (part == 0) {
      message.quantize();
      PPPML_UNROLL
      for (unsigned l = 0; l < Shape::kPrimes; ++l) message.finish(l, held[l], false);
      continue;
    }
    PPPML_UNROLL
    for (unsigned l = 0; l < Shape::kPrimes; ++l) {
      const Word q = first.ring.primes[l].modulus;
      group.phase([&](unsigned thread) {
        PPPML_UNROLL
        for (unsigned i = 0; i < Shape::kPerThread; ++i) {
          Word& x = held[l][thread].x[i];
          x = add(x, small_residue<Word>(state.error.at(thread + i * Shape::kThreads), q), q);
        }
      });
      BlockMessage<Shape, Group>::write_row(group, first.ring, place1, l, request.out1, held[l], state);
    }
  }
  group.phase([&](unsigned thread) {
    PPPML_NO_UNROLL
    for (unsigned k = thread; k < Shape::kDegree / 4; k += Shape::kThreads) shared.ephemeral.words[k] = 0;
  });
  message.finish_block();
}

}  // namespace pppml::kernels::cuda
