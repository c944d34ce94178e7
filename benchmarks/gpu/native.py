"""The extension that PPPML_NATIVE names, in the place of the installed one. Import before pppml_fast."""

from __future__ import annotations

import importlib.util
import os
import sys

_NAME = "pppml_fast._native"

if path := os.environ.get("PPPML_NATIVE"):
    spec = importlib.util.spec_from_file_location(_NAME, path)
    assert spec is not None and spec.loader is not None
    sys.modules[_NAME] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
