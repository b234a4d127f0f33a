"""Ingest as tests run it, and what it wrote."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from grocer.ingest import ingest
from grocer.settings import DataConfig

CONFIG = DataConfig(threads=1)


def run(source: Path, out: Path, config: DataConfig = CONFIG) -> dict:
    out.mkdir()
    return ingest(str(source), config, out)


def read(out: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(out / f"{name}.parquet")
