"""The exceptions of pppml_fast: one small tree, so that a caller can catch all of it or one leaf.

Every message names the offending value, the limit it broke and the remedy.
"""

from __future__ import annotations


class PppmlError(Exception):
    """Base of every error this library raises on purpose."""


class ParameterError(PppmlError, ValueError):
    """A parameter set cannot be built, or a key is used under parameters of another mode."""


class InputError(PppmlError, ValueError):
    """Values handed in cannot be used: NaN or Inf, wrong shape, wrong dtype, wrong length."""


class LayoutMismatchError(InputError):
    """Two models differ in the names, shapes, dtypes or order of their tensors."""


class KeyReuseError(PppmlError):
    """A one-time key was about to encrypt a second message."""


class CiphertextError(PppmlError, ValueError):
    """Bytes are not a ciphertext of these parameters, or two ciphertexts do not belong together."""


class OpeningError(PppmlError):
    """A sum failed its residual check or its sum check; no value was released."""


class DeviceError(PppmlError, RuntimeError):
    """A CUDA device cannot be used, or one of its calls failed; the text names the call."""


class DeviceMemoryError(DeviceError):
    """A CUDA device has no memory left for what was asked of it."""


class ProtocolError(PppmlError):
    """A message, state or roster breaks the rules of the protocol and was refused."""


class SiteError(PppmlError):
    """A site cannot go on: its own disk refuses. No message of another party is to blame."""


class ConfigError(PppmlError, ValueError):
    """A configuration file or an override names something that does not exist or does not fit."""


class DataError(PppmlError, ValueError):
    """A data file is missing, unreadable, empty or inconsistent."""
