"""Experiments: from a TOML file to tables, models and a report."""

from __future__ import annotations

from pppml_fast.experiment.config import ExperimentConfig
from pppml_fast.experiment.config_file import READY_CONFIGS, build_config, load_config, ready_config

__all__ = ["READY_CONFIGS", "ExperimentConfig", "build_config", "load_config", "ready_config"]
