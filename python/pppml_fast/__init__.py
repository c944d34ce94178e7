"""pppml_fast: personalised, privacy-preserving federated learning with encrypted sums.

``import pppml_fast`` needs NumPy alone. Aggregation (``pppml_fast.aggregation``), learning, imaging and the command
line are packages of their own with their own extras.
"""

from pppml_fast import cuda
from pppml_fast._version import __version__
from pppml_fast.cipher import (
    Ciphertext,
    CollectiveKey,
    KeyPair,
    OpeningKey,
    PublicKey,
    SecretKey,
    add,
    keygen,
    sum_check_tag,
    sum_check_verify,
)
from pppml_fast.errors import (
    CiphertextError,
    ConfigError,
    DataError,
    DeviceError,
    DeviceMemoryError,
    InputError,
    KeyReuseError,
    LayoutMismatchError,
    OpeningError,
    ParameterError,
    PppmlError,
    ProtocolError,
    SiteError,
)
from pppml_fast.layout import Layout, TensorSpec
from pppml_fast.memory import release_memory, set_memory_limit
from pppml_fast.params import PRESETS, CkksParams
from pppml_fast.quantize import count_clipped, dequantize, quantize
from pppml_fast.threads import get_num_threads, set_num_threads

__all__ = [
    "PRESETS",
    "Ciphertext",
    "CiphertextError",
    "CkksParams",
    "CollectiveKey",
    "ConfigError",
    "DataError",
    "DeviceError",
    "DeviceMemoryError",
    "InputError",
    "KeyPair",
    "KeyReuseError",
    "Layout",
    "LayoutMismatchError",
    "OpeningError",
    "OpeningKey",
    "ParameterError",
    "PppmlError",
    "ProtocolError",
    "PublicKey",
    "SecretKey",
    "SiteError",
    "TensorSpec",
    "__version__",
    "add",
    "count_clipped",
    "cuda",
    "dequantize",
    "get_num_threads",
    "keygen",
    "quantize",
    "release_memory",
    "set_memory_limit",
    "set_num_threads",
    "sum_check_tag",
    "sum_check_verify",
]
