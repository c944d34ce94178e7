"""Encryption, addition and exact opening on CUDA devices: the same bits, from and to tensors in a device's memory.

Weights come as tensors of any library that speaks DLPack or ``__cuda_array_interface__`` (PyTorch, CuPy, Numba), or
lists of them; ciphertexts stay on the device until they are asked for. Work is queued on a stream, PyTorch's or CuPy's
current one where tensors of theirs are handed in; nothing waits but what takes results to the host.
"""

from pppml_fast.cuda.arrays import DeviceArray, is_device_value, wipe
from pppml_fast.cuda.ciphertext import Ciphertext, add
from pppml_fast.cuda.device import DeviceInfo, device_count, device_info, is_available, why_unavailable
from pppml_fast.cuda.encryption import encrypt, encrypt_onto
from pppml_fast.cuda.identity import tag_pieces
from pppml_fast.cuda.opening import decrypt, decrypt_range
from pppml_fast.cuda.pieces import encrypt_in_pieces
from pppml_fast.errors import DeviceError, DeviceMemoryError

__all__ = [
    "Ciphertext",
    "DeviceArray",
    "DeviceError",
    "DeviceInfo",
    "DeviceMemoryError",
    "add",
    "decrypt",
    "decrypt_range",
    "device_count",
    "device_info",
    "encrypt",
    "encrypt_in_pieces",
    "encrypt_onto",
    "is_available",
    "is_device_value",
    "tag_pieces",
    "why_unavailable",
    "wipe",
]
