"""What one TOML file says, validated to the last key.

A file is a federation (`Experiment`) or one party's distillation (`Distillation`). `load` reads the
one, `load_distillation` the other, `to_toml` writes it back complete and resolved. The parameters
of a method, a way or a form of knowledge stay a plain table here; who owns them validates them
(`fedkd.methods.resolve`, `fedkd.learning.ways.resolve`), so this file does not grow with them.
"""

from fedkd.config.asynchronous import Asynchronous
from fedkd.config.distillation import (
    Distillation,
    Knowledge,
    RecordPrivacy,
    Teacher,
    Trained,
    WayChoice,
)
from fedkd.config.evaluation import Evaluation
from fedkd.config.exchange import Exchange
from fedkd.config.experiment import (
    Alignment,
    Clients,
    Data,
    Engine,
    Experiment,
    MethodChoice,
    Privacy,
    Privileged,
    Student,
)
from fedkd.config.models import RANDOM, ModelSpec, Weights, specs_in, with_specs
from fedkd.config.partition import Dirichlet, Iid, Natural, Partition, Shards
from fedkd.config.parts import Choice, Frozen, Hardware, Output, TaskChoice
from fedkd.config.pictures import PictureKeys
from fedkd.config.read import (
    ConfigLike,
    load,
    load_distillation,
    load_either,
    parse,
    parse_json,
    read,
    validate,
)
from fedkd.config.robust import Robust
from fedkd.config.source import Format, Interactions, Layout, PublicData, Source, Stream
from fedkd.config.text import Text, TextColumns
from fedkd.config.training import DPSGD, OPTIMISERS, Augmentation, Optimisation

__all__ = [
    "DPSGD",
    "OPTIMISERS",
    "RANDOM",
    "Alignment",
    "Asynchronous",
    "Augmentation",
    "Choice",
    "Clients",
    "ConfigLike",
    "Data",
    "Dirichlet",
    "Distillation",
    "Engine",
    "Evaluation",
    "Exchange",
    "Experiment",
    "Format",
    "Frozen",
    "Hardware",
    "Iid",
    "Interactions",
    "Knowledge",
    "Layout",
    "MethodChoice",
    "ModelSpec",
    "Natural",
    "Optimisation",
    "Output",
    "Partition",
    "PictureKeys",
    "Privacy",
    "Privileged",
    "PublicData",
    "RecordPrivacy",
    "Robust",
    "Shards",
    "Source",
    "Stream",
    "Student",
    "TaskChoice",
    "Teacher",
    "Text",
    "TextColumns",
    "Trained",
    "WayChoice",
    "Weights",
    "load",
    "load_distillation",
    "load_either",
    "parse",
    "parse_json",
    "read",
    "specs_in",
    "validate",
    "with_specs",
]
