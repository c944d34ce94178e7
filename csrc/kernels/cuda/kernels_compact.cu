#include "kernels/cuda/kernels.cuh"

namespace pppml::kernels::cuda {

PPPML_CUDA_INSTANTIATE(Compact)

}  // namespace pppml::kernels::cuda
