"""Data sets as Hugging Face's `save_to_disk` writes them, written by pyarrow alone.

The files are those of `datasets` 5.2.0: Arrow's stream format, and two JSON files beside it.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow


def split(folder: Path, columns: dict[str, Any], features: dict[str, Any], files: int = 1) -> None:
    """One split, in as many files as are asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    names = [f"data-{n:05d}-of-{files:05d}.arrow" for n in range(files)]
    size = -(-len(table) // files)
    for n, name in enumerate(names):
        part = table.slice(n * size, size)
        with pyarrow.ipc.new_stream(folder / name, part.schema) as stream:
            stream.write_table(part)
    about = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(about))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))


def splits(folder: Path, names: list[str]) -> None:
    """What says which splits there are."""
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": names}))
