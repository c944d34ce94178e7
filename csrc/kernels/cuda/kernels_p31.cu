#include "kernels/cuda/kernels.cuh"

namespace pppml::kernels::cuda {

PPPML_CUDA_INSTANTIATE(P31)

}  // namespace pppml::kernels::cuda
