# Which definition of kernels/cuda/runtime.hpp and launch.hpp is built: with CUDA, without, or the one for tests.
set(PPPML_CUDA_ARCHITECTURES "80-real;90-real;100" CACHE STRING
    "As CMAKE_CUDA_ARCHITECTURES: machine code for these, and PTX of the last for what comes after")
set(PPPML_CUDA_BUILT OFF)
if(PPPML_CUDA STREQUAL "AUTO" OR PPPML_CUDA STREQUAL "ON")
  include(CheckLanguage)
  # The compiler is looked for where CUDA installs itself too.
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(PPPML_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin PATHS /usr/local/cuda)
    if(PPPML_NVCC)
      set(CMAKE_CUDA_COMPILER ${PPPML_NVCC})
    endif()
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${PPPML_CUDA_ARCHITECTURES})
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(PPPML_CUDA_BUILT ON)
  elseif(PPPML_CUDA STREQUAL "ON")
    message(FATAL_ERROR "PPPML_CUDA=ON, and nvcc is neither on the path nor under CUDA_HOME or /usr/local/cuda: "
                        "install the CUDA toolkit, name nvcc in CUDACXX, or build with PPPML_CUDA=OFF")
  endif()
elseif(NOT PPPML_CUDA STREQUAL "OFF" AND NOT PPPML_CUDA STREQUAL "HOST")
  message(FATAL_ERROR "PPPML_CUDA=${PPPML_CUDA} is none of AUTO, ON, OFF, HOST")
endif()

if(PPPML_CUDA_BUILT)
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
  # One wheel for machines with and without a driver.
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  list(APPEND PPPML_KERNELS ${PPPML_KERNELS_CUDA})
  message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER_VERSION}, for ${CMAKE_CUDA_ARCHITECTURES}")
elseif(PPPML_CUDA STREQUAL "HOST")
  list(APPEND PPPML_KERNELS ${PPPML_KERNELS_CUDA_HOST})
  message(STATUS "CUDA: played by the processor, for tests")
else()
  list(APPEND PPPML_KERNELS ${PPPML_KERNELS_CUDA_ABSENT})
endif()

function(pppml_cuda_options target)
  if(NOT PPPML_CUDA_BUILT)
    return()
  endif()
  # Quantised values must not depend on fused multiplications here either. 20014 warns of the host's side of functions
  # that are declared for both and called on one.
  target_compile_options(${target} PRIVATE
                         $<$<COMPILE_LANGUAGE:CUDA>:-O3 -fmad=false -Xptxas=-v --diag-suppress=20014
                           -Xcompiler=-ffp-contract=off>)
  set_target_properties(${target} PROPERTIES CUDA_SEPARABLE_COMPILATION OFF CUDA_RUNTIME_LIBRARY Static)
endfunction()
