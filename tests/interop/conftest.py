"""Shared by the tests of interoperation. Those that need openfhe stand in a folder that `make test-openfhe` names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
