"""The configs in fedkd/configs/ as they are, but for their size: a round, an epoch, few records."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from fedkd import config, methods
from fedkd.config import Distillation, Experiment, Optimisation
from fedkd.learning import ways

LEAST = {
    "epochs": 1,
    "rounds": 1,
    "steps": 1,
    "iterations": 1,
    "generator_steps": 1,
    "student_steps": 1,
    "generations": 1,
    "batches": 1,
    "images": 40,
    "records": 16,
    "public_per_round": 20,
    "latent": 8,
    "batch_size": 16,
    "student_batch_size": 16,
    "labelled": 30,
    "components": 60,
    "shapes": 200,
}
"""What says how much is done, under any name of a method or a way, and the least of it."""


def experiment(table: Mapping[str, Any], *, clients: int = 3) -> Experiment:
    """A federation of a round and of few clients."""
    least: dict[str, Any] = _least(dict(table))
    least["rounds"] = least["data"].get("stream", {}).get("stages", 1)
    parties = least["clients"]
    if "count" in parties:
        parties["count"] = min(clients, parties["count"])
    parties["participation"] = 1.0
    parties["training"] = _told(parties.get("training", {}), Optimisation)
    if least["data"].get("partition", {}).get("scheme", "dirichlet").startswith("dirichlet"):
        partition = {"scheme": "dirichlet", **least["data"].get("partition", {})}
        least["data"]["partition"] = {**partition, "min_size": 1}
    if "public" in least["data"]:
        least["data"]["public"]["size"] = min(20, least["data"]["public"].get("size", 20))
    if "privacy" in least:  # or the least noise that fits the budget is searched for
        least["privacy"].setdefault("noise_multiplier", 1.5)
        if "epsilon" in least["privacy"]:
            least["privacy"]["epsilon"] = max(8.0, least["privacy"]["epsilon"])
    least["method"] = _told(least["method"], methods.find(least["method"]["name"]).Params)
    return config.parse(least)


def distillation(table: Mapping[str, Any]) -> Distillation:
    """One party's distillation of an epoch."""
    least: dict[str, Any] = _least(dict(table))
    way = least.get("way", {"name": "offline"})
    least["way"] = _told(way, ways.find(way["name"]).Params)
    for model in [least["student"], *least.get("teachers", [])]:
        model["training"] = _told(model.get("training", {}), Optimisation)
    return config.validate(Distillation, least)


def _least(value: Any) -> Any:
    """Every number of `LEAST` in a table that is larger, however deep."""
    if isinstance(value, list):
        return [_least(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: min(LEAST[key], each)
        if key in LEAST and isinstance(each, int) and not isinstance(each, bool)
        else _least(each)
        for key, each in value.items()
    }


def _told(choice: Mapping[str, Any], params: type[BaseModel]) -> dict[str, Any]:
    """A choice with the least of what it leaves to long defaults."""
    told = dict(choice)
    for key, field in params.model_fields.items():
        if isinstance(field.default, BaseModel):
            told[key] = _told(told.get(key, {}), type(field.default))
        elif key in LEAST and isinstance(field.default, int):
            told[key] = min(LEAST[key], told.get(key, field.default))
    return told
