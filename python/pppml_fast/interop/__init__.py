"""Other libraries' CKKS ciphertexts and keys, read and written.

``pppml_fast.interop.openfhe`` needs the package ``openfhe``; nothing here is imported by ``import pppml_fast``.
``docs/interoperation.md`` says what fits and what does not.
"""
