"""Made-up patients in the form in which UCI gives the heart disease data."""

from pathlib import Path

import numpy as np

from fedkd.data.readers import heart

CODES = {"cp": (1, 2, 3, 4), "restecg": (0, 1, 2), "slope": (1, 2, 3), "thal": (3, 6, 7)}
RANGES = {"age": (30, 75), "trestbps": (95, 190), "chol": (120, 400), "thalach": (80, 195)}
NEVER = ("age", "sex", "cp")


def write(folder: Path, *, sizes: tuple[int, ...] = (24, 20, 16, 12), seed: int = 0) -> Path:
    """The four hospitals' files; the ill are older, and lack more tests; the third never scans."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    for number, (file, size) in enumerate(zip(heart.FILES, sizes, strict=True)):
        rows = [_patient(draw, ill=i % 2 == 1, scans=number != 2) for i in range(size)]
        (folder / file).write_text("".join(",".join(row) + "\n" for row in rows))
    return folder


def _patient(draw: np.random.Generator, *, ill: bool, scans: bool) -> list[str]:
    cells = []
    for test in heart.TESTS:
        low, high = RANGES.get(test, (0, 1))
        value = draw.choice(CODES[test]) if test in CODES else round(draw.uniform(low, high), 1)
        value = round(value) if test in ("sex", "fbs", "exang", "ca") else value
        value = value + 5 * ill if test == "age" else value
        missing = test not in NEVER and draw.random() < (0.3 if ill else 0.1)
        missing = missing or (not scans and test in ("ca", "thal"))
        cells.append("?" if missing else str(value))
    return [*cells, str(int(draw.integers(1, 5)) if ill else 0)]
