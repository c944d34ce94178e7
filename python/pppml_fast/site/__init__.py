"""One member's or coordinator's process: membership, keys and files, the application that trains, what is to be seen.

Needs NumPy, ``cryptography`` and ``grpcio``; no torch.
"""
