"""OpenFHE's CKKS contexts, keys and ciphertexts, read and written.

Needs the package ``openfhe``, whose wheel of version 1.6.1.0.22.4 serves CPython 3.10 alone.

What OpenFHE decrypts falls outside the exactness of :mod:`pppml_fast`: an approximate result carries the noise, and a
party that learns it together with the ciphertext can compute the secret key (IND-CPA-D, Li and Micciancio, eprint
2020/1533). It stays with the key's owner, or is rounded to a public precision whose bound is stated. Decryption by
shares (``MultipartyDecryptLead``, ``Main``, ``Fusion``) gives the result to whoever fuses: the same rule binds that
party.
"""

from pppml_fast.interop.openfhe.bridge import OpenfheBridge, new_key_tag
from pppml_fast.interop.openfhe.exchange import OpenfheExchange
from pppml_fast.interop.residues import PublicResidues, ResidueCiphertext

__all__ = ["OpenfheBridge", "OpenfheExchange", "PublicResidues", "ResidueCiphertext", "new_key_tag"]
