// A build without CUDA: it says so, and has no device.
#include "kernels/cuda/launch.hpp"

namespace pppml::kernels::cuda {
namespace {

[[noreturn]] void refuse() {
  throw DeviceError(why_unusable());
}

}  // namespace

bool built() {
  return false;
}
std::string why_unusable() {
  return "this build of pppml_fast has no CUDA; build it with PPPML_CUDA=ON and nvcc (docs/gpu.md)";
}
int device_count() {
  return 0;
}
DeviceDescription describe(int) {
  refuse();
}
int device_of(const void*) {
  return -1;
}
void synchronize(Stream) {
  refuse();
}
void wait(Stream, Stream) {
  refuse();
}
void copy_to_device(Stream, void*, const void*, std::size_t) {
  refuse();
}
void copy_to_host(Stream, void*, const void*, std::size_t) {
  refuse();
}
void queue_to_host(Stream, void*, const void*, std::size_t) {
  refuse();
}
void* allocate_pinned(int, std::size_t) {
  refuse();
}
void release_pinned(void*) noexcept {}
void zero(Stream, void*, std::size_t) {
  refuse();
}
void* allocate(Stream, std::size_t) {
  refuse();
}
void release(Stream, void*) noexcept {}
void zero_quietly(Stream, void*, std::size_t) noexcept {}

template <class Shape>
void launch_encrypt(Stream, const EncryptRequest<Shape>&) {
  refuse();
}
template <class Shape>
void launch_encrypt_public(Stream, const PublicRequest<Shape>&) {
  refuse();
}
template <class Shape>
void launch_open(Stream, const OpenRequest<Shape>&) {
  refuse();
}
template <class Shape>
void launch_sum(Stream, const SumRequest<Shape>&) {
  refuse();
}
template <class Shape>
void launch_move(Stream, const MoveRequest<Shape>&) {
  refuse();
}
void launch_wipe(Stream, const WipeRequest&) {
  refuse();
}
void launch_tag(Stream, const TagRequest&, std::uint64_t) {
  refuse();
}

PPPML_CUDA_INSTANTIATE(P31)
PPPML_CUDA_INSTANTIATE(P50)
PPPML_CUDA_INSTANTIATE(P62)
PPPML_CUDA_INSTANTIATE(Compact)

}  // namespace pppml::kernels::cuda
