// The kernels themselves: shared memory, and the functions that the host's tests run too. Each shape is compiled in a
// file of its own, side by side.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/encrypt.hpp"
#include "kernels/cuda/launch.hpp"
#include "kernels/cuda/on_device.cuh"
#include "kernels/cuda/open.hpp"
#include "kernels/cuda/sums.hpp"

namespace pppml::kernels::cuda {

// Blocks of threads that a multiprocessor is to hold at the least, which bounds the registers of a thread: for p31 64
// to encrypt and 80 to open, 128 for the others and for public keys. With fewer some would be spilled, which `make
// build-cuda` refuses.
template <class Shape>
constexpr unsigned kResidentPublic = 512 / Shape::kThreads;
template <class Shape>
constexpr unsigned kResident = (Shape::kNarrow && Shape::kPrimes == 1 ? 1024 : 512) / Shape::kThreads;
// Opening takes some more registers before sm_90.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
template <class Shape>
constexpr unsigned kResidentOpen = kResidentPublic<Shape>;
#else
template <class Shape>
constexpr unsigned kResidentOpen = (Shape::kNarrow ? 768 : 512) / Shape::kThreads;
#endif

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads, kResident<Shape>) void encrypt_kernel(
    const __grid_constant__ EncryptRequest<Shape> request) {
  __shared__ State<Shape> state;
  encrypt_block<Shape>(DeviceGroup<Shape::kThreads>{}, request, state);
}

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads, kResidentPublic<Shape>) void encrypt_public_kernel(
    const __grid_constant__ PublicRequest<Shape> request) {
  __shared__ PublicState<Shape> state;
  encrypt_public_block<Shape>(DeviceGroup<Shape::kThreads>{}, request, state);
}

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads, kResidentOpen<Shape>) void open_kernel(
    const __grid_constant__ OpenRequest<Shape> request) {
  __shared__ State<Shape> state;
  open_block<Shape>(DeviceGroup<Shape::kThreads>{}, request, state);
}

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads) void sum_kernel(const __grid_constant__ SumRequest<Shape> request) {
  sum_block<Shape>(DeviceGroup<Shape::kThreads>{}, request);
}

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads) void move_kernel(const __grid_constant__ MoveRequest<Shape> request) {
  __shared__ typename Shape::Word row[Shape::kDegree];
  move_block<Shape>(DeviceGroup<Shape::kThreads>{}, request, row);
}

template <class Shape>
void launch_encrypt(Stream stream, const EncryptRequest<Shape>& request) {
  start(encrypt_kernel<Shape>, "encrypt_kernel", stream, request.batch.blocks, Shape::kThreads, request);
}
template <class Shape>
void launch_encrypt_public(Stream stream, const PublicRequest<Shape>& request) {
  start(encrypt_public_kernel<Shape>, "encrypt_public_kernel", stream, request.message.batch.blocks, Shape::kThreads,
        request);
}
template <class Shape>
void launch_open(Stream stream, const OpenRequest<Shape>& request) {
  start(open_kernel<Shape>, "open_kernel", stream, request.batch.blocks, Shape::kThreads, request);
}
template <class Shape>
void launch_sum(Stream stream, const SumRequest<Shape>& request) {
  start(sum_kernel<Shape>, "sum_kernel", stream, request.batch.blocks, Shape::kThreads, request);
}
template <class Shape>
void launch_move(Stream stream, const MoveRequest<Shape>& request) {
  start(move_kernel<Shape>, "move_kernel", stream, request.batch.blocks, Shape::kThreads, request);
}

}  // namespace pppml::kernels::cuda
