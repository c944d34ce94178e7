#include "kernels/cuda/kernels.cuh"

namespace pppml::kernels::cuda {

PPPML_CUDA_INSTANTIATE(P50)

}  // namespace pppml::kernels::cuda
