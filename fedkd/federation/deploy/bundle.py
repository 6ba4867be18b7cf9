"""The bundle: a Flower app that is one pyproject.toml and holds no code.

Its parts point at the installed library and the whole experiment is one JSON string, so that a site
reads what it takes part in, and pins it by one hash.
"""

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from importlib.metadata import version

import tomli_w

from fedkd.config import RANDOM, Engine, Experiment, ModelSpec, Text, with_specs
from fedkd.config.evaluation import FederationOutput
from fedkd.errors import ConfigError

SERVER_APP, CLIENT_APP = "fedkd.jobs.serverapp:app", "fedkd.federation.deploy.siteapp:app"

EXPERIMENT, SHARED, RUN, VERSION = "experiment", "shared", "run", "fedkd"
"""The keys of the app's configuration: a JSON string, a SHA-256, a run's name, and the version."""


def counted(experiment: Experiment, clients: int) -> Experiment:
    """The experiment with the number of clients that take part.

    Raises:
        ConfigError: it names another number.
    """
    if experiment.clients.count not in (None, clients):
        raise ConfigError(
            f"clients.count is {experiment.clients.count} and {clients} clients take part: choose "
            f"them with --client, or set --set clients.count={clients}"
        )
    number = experiment.clients.model_copy(update={"count": clients})
    return experiment.model_copy(update={"clients": number})


def for_wire(experiment: Experiment, clients: int) -> str:
    """An experiment as it travels: JSON without the paths of the machine that it comes from.

    Args:
        experiment: complete, its method's parameters too.
        clients: how many take part.

    Raises:
        ConfigError: it names another number of clients.
    """
    experiment = with_specs(counted(experiment, clients), partial(moved, where=last))
    data, public = experiment.data, experiment.data.public
    if public is not None:
        public = public.model_copy(update={"source": last(public.source)})
    # Of a tokeniser its SHA-256 travels: all parties have it in the shared file.
    text = None if data.text is None else data.text.model_copy(update=_without_paths(data.text))
    users = data.interactions
    if users is not None and users.items is not None:
        users = users.model_copy(update={"items": last(users.items)})
    # Of files that sites have not, and of codes, which features' names in the shared file say.
    named: dict[str, object] = {
        "name": last(data.name),
        "test": None if data.test is None else last(data.test),
        "interactions": users,
        "clients": (),
        "codes": {},
        "public": public,
        "text": text,
    }
    return experiment.model_copy(
        update={
            "data": data.model_copy(update=named),
            "privacy": experiment.privacy.model_copy(update={"ledger": None}),
            "engine": Engine(),
            # Who is scored when is what clients send, and what the server expects of them.
            "output": FederationOutput(evaluate=experiment.output.evaluate),
        }
    ).to_json()


def _without_paths(text: Text) -> dict[str, object]:
    files = {name: last(file) for name, file in text.tokenizers.items()}
    single = isinstance(text.tokenizer, str)
    learned = None if text.texts is None else last(text.texts)
    return {"tokenizer": files[""] if single else files, "texts": learned}


def moved(spec: ModelSpec, where: Callable[[str], str]) -> ModelSpec:
    """A model whose files lie elsewhere: its weights, and the folder of family `hf`."""
    family, _, folder = spec.name.partition("/")
    update: dict[str, object] = {"name": f"hf/{where(folder)}"} if family == "hf" else {}
    if spec.weights is not None and spec.weights.file != RANDOM:
        update["weights"] = spec.weights.model_copy(update={"file": where(spec.weights.file)})
    return spec.model_copy(update=update)


def fingerprint(experiment: str) -> str:
    """The SHA-256 of an experiment as it travels, by which a site may allow it."""
    return sha256(experiment.encode()).hexdigest()


def pyproject(name: str, experiment: str, shared: str) -> str:
    """The app's one file.

    Args:
        name: the experiment's.
        experiment: as `for_wire` gives it.
        shared: the SHA-256 of what all parties hold.
    """
    table = {
        "project": {
            "name": "fedkd-experiment",  # Flower takes fewer names than we do
            "version": "1.0.0",
            "description": f"fedkd experiment {name}, SHA-256 {fingerprint(experiment)}",
            "license": "Apache-2.0",
            "dependencies": [f"fedkd=={version('fedkd')}"],
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "fedkd",
                    "components": {"serverapp": SERVER_APP, "clientapp": CLIENT_APP},
                    "config": {
                        EXPERIMENT: experiment,
                        SHARED: shared,
                        VERSION: version("fedkd"),
                        RUN: "",
                    },
                }
            }
        },
    }
    return tomli_w.dumps(table)


def last(name: str) -> str:
    """The last part of a path, of a file or of code; a name without one stays."""
    return name.replace("\\", "/").replace(":", "/").rsplit("/", 1)[-1]
