"""What the goldens run: plain configurations, each with the file of samples it reads."""

from pathlib import Path
from typing import Any

import numpy as np
import tiny

MLP, WIDE = {"name": "mlp", "hidden": [12]}, {"name": "mlp", "hidden": [16]}
WIDE_THEN_MLP = {"name": "mlp", "hidden": [10, 12]}
GENERATOR = {"latent": 8, "width": 4}


def write_files(folder: Path) -> dict[str, Path]:
    """The files that cases read, by name."""
    return {
        "rows": tiny.write_rows(folder / "rows.npz"),
        "images": tiny.write_images(folder / "images.npz", side=12),
        "squares": tiny.write_images(folder / "squares.npz", side=8, samples=120),
        "clinic": _write_clinic(folder / "clinic.csv"),
    }


def _write_clinic(path: Path) -> Path:
    """Two sites' patients: `scan` tells most, and site b never made one."""
    draw = np.random.default_rng(3)
    lines = ["site,age,pressure,scan,stress,ill"]
    for i in range(240):
        ill, site = i % 2, "ab"[i % 4 // 2]
        scan = f"{2 * ill - 1 + draw.normal():.3f}" if site == "a" and i % 3 else "?"
        values = [f"{ill * 0.8 + draw.normal():.3f}" for _ in range(3)]
        lines.append(f"{site},{values[0]},{values[1]},{scan},{values[2]},{ill}")
    path.write_text("\n".join(lines) + "\n")
    return path


def experiment(method: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """A federation of three, with what is changed of its sections."""
    table: dict[str, Any] = {
        "name": "golden",
        "seed": 7,
        "rounds": 2,
        "data": {"public": {"size": 30}, "partition": {"scheme": "iid"}},
        "student": {"model": MLP},
        "method": method,
        "engine": {"threads": 2},
        "clients": {"count": 3},
    }
    training = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1}
    table["clients"] |= {"models": [MLP], "training": training}
    for name, changes in sections.items():
        table[name] = {**table.get(name, {}), **changes} if isinstance(changes, dict) else changes
    return table


def engine(method: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """Six clients of unlike architectures, as those that try every number of threads."""
    clients = {
        "count": 6,
        "models": ["dense-cnn", "lenet5", {"name": "mlp", "hidden": [32]}],
        "training": {"epochs": 1, "batch_size": 16, "learning_rate": 0.05},
        **sections.pop("clients", {}),
    }
    data = {"public": {"size": 40}, **sections.pop("data", {})}
    data = {key: value for key, value in data.items() if value is not None}
    made = experiment(method, clients=clients, student={"model": "lenet5"}, **sections)
    made["data"] = {"partition": {"scheme": "iid"}, **data}
    return made


SOME = {"participation": 0.7}
CLOSED = {"name": "analytic", "components": 20}
ENGINES: dict[str, dict[str, Any]] = {
    "fedmd": engine({"name": "fedmd"}, clients=SOME),
    "feddf": engine({"name": "feddf", "student": {"epochs": 2, "batch_size": 16}}),
    "dense": engine(
        {"name": "dense", "epochs": 3, "steps": 3, "batch_size": 16, **GENERATOR},
        rounds=1,
        data={"public": None},
    ),
    "fedkd": engine({"name": "fedkd"}, clients=SOME),
    "fedgkt": engine(
        {"name": "fedgkt", "layer": "pool1", "records": 20}, clients={"models": ["lenet5"]}
    ),
    "analytic": engine(CLOSED, rounds=1),
    "summed": engine(CLOSED, rounds=1, privacy={"secure_aggregation": True}),
}

TEACHING = {"epochs": 3, "optimiser": "adam", "learning_rate": 0.01}
DREAMING = {"epochs": 2, "steps": 5, "batch_size": 12}
IN_STAGES = {"by": "classes", "stages": 2}
ONE_SHOT = ("dense", "dafl", "adi", "co_boosting", "fedpair", "fedpair_moments", "analytic")
METHODS: dict[str, dict[str, Any]] = {
    "local": {},
    "centralised": {},
    "fedavg": {},
    "fedprox": {"mu": 0.01},
    "fedlwf": {"exemplars": 6},
    "fedmd": {"public_per_round": 20, "student": {"learning_rate": 0.1}},
    "dsfl": {"public_per_round": 20, "student": {"learning_rate": 0.2}},
    "feddf": {"student": TEACHING},
    "dense": {**DREAMING, **GENERATOR},
    "dafl": {**DREAMING, "steps": 3, **GENERATOR},
    "adi": DREAMING,
    "co_boosting": {**DREAMING, **GENERATOR},
    "fedftg": {"iterations": 3, "batch_size": 12, **GENERATOR},
    "fedgen": {"steps": 40, "latent": 4, "hidden": 8, "learning_rate": 0.02, "distillation": 1.0},
    "fedkd": {"energy_start": 0.9},
    "fedproto": {"student": {"learning_rate": 0.1}},
    "fedgkt": {"layer": "relu1", "records": 16, "back": {"learning_rate": 0.1}},
    "fedpair": {"epochs": 2, "images": 60},
    "fedpair_moments": {
        "epochs": 2,
        "images": 60,
        "features": {"name": "random-filters", "filters": 4, "pool": 2},
    },
    "analytic": {},
}
ONE_ARCHITECTURE = ("centralised", "fedavg", "fedprox", "fedlwf", "fedftg", "fedgen", "fedgkt")


def _of_method(name: str) -> dict[str, Any]:
    models = [MLP] if name in ONE_ARCHITECTURE else [MLP, WIDE]
    models = [MLP, WIDE_THEN_MLP] if name == "fedproto" else models
    rounds = 1 if name in ONE_SHOT else 2
    data = {"stream": IN_STAGES} if name == "fedlwf" else {}
    method = {"name": name, **METHODS[name]}
    return experiment(method, clients={"models": models}, rounds=rounds, data=data)


HIDING = experiment(
    {"name": "fedmd", "public_per_round": 20, "student": {"learning_rate": 0.1}},
    data={
        "label": "ill",
        "client": "site",
        "missing": "indicate",
        "partition": {"scheme": "natural"},
    },
    clients={"privileged": {"columns": ["scan", "stress"]}, "models": [MLP, WIDE]},
)
del HIDING["clients"]["count"]
BOUNDED = experiment(
    {"name": "feddf", "student": TEACHING},
    data={"partition": {"scheme": "dirichlet", "alpha": 0.3}},
    clients={"max_weight": 0.4, "models": [MLP, WIDE]},
)

HOW = {"epochs": 2, "batch_size": 16, "learning_rate": 0.05}
NARROW = {"name": "mlp", "hidden": [8]}
TEACHER = {"model": WIDE, "training": HOW}
CNN = {"model": "dense-cnn", "training": HOW}
FREE = {"student": {"model": NARROW, "training": {**HOW, **TEACHING, "epochs": 2}}}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "offline": (
        "rows",
        {
            "way": {"labels": 0.3},
            "teachers": [TEACHER],
            "knowledge": [{"name": "kd"}, {"name": "fitnets", "weight": 0.1}],
        },
    ),
    "injection": (
        "rows",
        {"way": {"layer": "hidden1", "block": "hidden1"}, "teachers": [TEACHER]},
    ),
    "mutual": ("rows", {"way": {"peers": [{"name": "mlp", "hidden": [4, 4]}]}}),
    "born-again": ("rows", {"way": {"generations": 1, "ensemble": True}}),
    "early-exits": ("rows", {"way": {"exits": ["hidden1"], "keep": True}}),
    "multi-teacher": (
        "rows",
        {"way": {"average": "class", "skew": 1.0}, "teachers": [TEACHER, TEACHER]},
    ),
    "continual": ("rows", {"way": {"exemplars": 6}, "data": {"stream": IN_STAGES}}),
    "mean-teacher": ("rows", {"way": {"labelled": 60, "shift": 0}}),
    "privileged": ("squares", {"way": {"side": 4, "blind": [1]}, "teachers": [TEACHER, TEACHER]}),
    "dafl": (
        "squares",
        {"way": {"steps": 4, "batch_size": 16, **GENERATOR}, "teachers": [CNN], **FREE},
    ),
    "adi": ("squares", {"way": {"steps": 5, "batch_size": 16}, "teachers": [CNN], **FREE}),
}
FORMS: dict[str, dict[str, Any]] = {
    "divergence": {},
    **{name: {} for name in ("kd", "dkd", "dist", "jsd", "soft-labels", "mae")},
    **{name: {} for name in ("fitnets", "at", "nst", "vid")},
    "ab": {"student": ["conv1"], "teacher": ["conv1"]},
    "ft": {},
    **{name: {} for name in ("sp", "pkt", "cc", "rkd")},
    "graph": {"student": ["relu1", "relu2"], "teacher": ["conv1", "conv2"]},
}
"""Every form of knowledge, with what it needs to be told."""


def _distillation(name: str, told: dict[str, Any]) -> dict[str, Any]:
    base = {"name": "golden", "seed": 3, "student": {"model": NARROW, "training": HOW}, **told}
    return base | {"way": {"name": name, **told["way"]}}


def _of_form(name: str) -> dict[str, Any]:
    once = {**HOW, "epochs": 1}
    told: dict[str, Any] = {
        "way": {"labels": 0.5},
        "teachers": [{"model": "dense-cnn", "training": once}],
        "student": {"model": {"name": "dense-cnn", "norm": "none"}, "training": once},
        "knowledge": [{"name": name, **FORMS[name]}],
        "plain": False,
    }
    return _distillation("offline", told)


SIMULATE, DISTIL = "simulate", "distil"
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{f"engine-{name}": (SIMULATE, "images", table) for name, table in ENGINES.items()},
    **{f"method-{name}": (SIMULATE, "squares", _of_method(name)) for name in METHODS},
    "privileged-columns-fedmd": (SIMULATE, "clinic", HIDING),
    "max-weight-feddf": (SIMULATE, "squares", BOUNDED),
    **{
        f"way-{name}": (DISTIL, data, _distillation(name, told))
        for name, (data, told) in WAYS.items()
    },
    **{f"form-{name}": (DISTIL, "squares", _of_form(name)) for name in FORMS},
}
"""The command, the file and the configuration of each case, by its name."""
