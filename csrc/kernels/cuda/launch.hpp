// Starting the kernels: one block of threads per polynomial block of the request, queued on a stream.
#pragma once

#include "kernels/cuda/identity.hpp"
#include "kernels/cuda/requests.hpp"
#include "kernels/cuda/runtime.hpp"

namespace pppml::kernels::cuda {

template <class Shape>
void launch_encrypt(Stream stream, const EncryptRequest<Shape>& request);
template <class Shape>
void launch_encrypt_public(Stream stream, const PublicRequest<Shape>& request);
template <class Shape>
void launch_open(Stream stream, const OpenRequest<Shape>& request);
template <class Shape>
void launch_sum(Stream stream, const SumRequest<Shape>& request);
template <class Shape>
void launch_move(Stream stream, const MoveRequest<Shape>& request);
void launch_wipe(Stream stream, const WipeRequest& request);
void launch_tag(Stream stream, const TagRequest& request, std::uint64_t pieces);

// Of a definition file: its kernels for every shape.
#define PPPML_CUDA_INSTANTIATE(Shape)                                              \
  template void launch_encrypt<Shape>(Stream, const EncryptRequest<Shape>&);       \
  template void launch_encrypt_public<Shape>(Stream, const PublicRequest<Shape>&); \
  template void launch_open<Shape>(Stream, const OpenRequest<Shape>&);             \
  template void launch_sum<Shape>(Stream, const SumRequest<Shape>&);               \
  template void launch_move<Shape>(Stream, const MoveRequest<Shape>&);

}  // namespace pppml::kernels::cuda
