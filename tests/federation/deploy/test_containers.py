"""The container files: linted, and their commands and mounts tried without a container."""

import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import gotpl
import jsonschema
import kubernetes_validate
import pytest
import yaml
from gotpl.exts.helm import HelmTemplateEngine

from fedkd import cli, config
from fedkd.federation.deploy import keys
from fedkd.federation.deploy.site import Policy
from fedkd.version import __version__

DEPLOY = Path(__file__).parents[3] / "examples" / "deploy"
CHART = DEPLOY / "helm" / "fedkd"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
HOSPITALS = ["hospital-a", "hospital-b", "hospital-c"]


def tool(name, *arguments):
    """Run a program of this environment, or skip where there is none for this machine."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=False)


def test_the_dockerfile_is_clean():
    done = tool("hadolint", DEPLOY / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.compose-spec", DEPLOY / "compose.yaml"),
        ("vendor.github-workflows", DEPLOY.parents[1] / ".github/workflows/release.yml"),
    ],
)
def test_a_file_is_what_its_program_reads(schema, file):
    done = tool("check-jsonschema", "--builtin-schema", schema, file)
    assert done.returncode == 0, done.stdout


def test_the_release_compares_its_tag_with_the_file_that_has_the_version():
    jobs = yaml.safe_load((DEPLOY.parents[1] / ".github/workflows/release.yml").read_text())["jobs"]
    [check] = [run for step in jobs["build"]["steps"] if "grep" in (run := step.get("run", ""))]
    tagged = {"PATH": os.environ["PATH"], "GITHUB_REF_NAME": f"v{__version__}"}
    done = subprocess.run(["bash", "-c", check], cwd=DEPLOY.parents[1], env=tagged, check=False)
    assert done.returncode == 0


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """A folder for each service of compose.yaml that holds what it mounts and nothing else."""
    laid, machines = tmp_path_factory.mktemp("laid"), {}
    experiment = tmp_path_factory.mktemp("small") / "experiment.toml"
    text = (DEPLOY / "experiment.toml").read_text()
    experiment.write_text(text.replace("size = 1000", "size = 50"))
    words = COMPOSE["prepare"]["command"].split()
    words = [{"/experiment.toml": experiment, "/trial": laid}.get(word, word) for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fedkd", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code
    for name in ("server", *HOSPITALS):
        machines[name] = tmp_path_factory.mktemp(name)
        for mount in COMPOSE[name]["volumes"]:
            source, target = mount.split(":")[:2]
            held = DEPLOY / source if source == "./experiment.toml" else laid / source[8:]
            there = machines[name] / target.removeprefix("/trial/")
            there.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if held.is_dir() else shutil.copy2)(held, there)
    return machines


def test_each_party_holds_its_own_key_alone(machines):
    for holder, owner in product(machines, HOSPITALS):
        private = machines[holder] / keys.CLIENTS / owner
        assert private.exists() == (holder == owner)
    assert not any((machine / keys.CA_KEY).exists() for machine in machines.values())


def test_the_server_lets_the_hospitals_in_by_the_name_they_call(machines):
    place = machines["server"]
    assert list(keys.public_keys(place)) == HOSPITALS
    assert {"server", "127.0.0.1"} <= keys.server_names(place)
    words = COMPOSE["server"]["command"].split()
    assert (words[words.index("--keys") + 1], words[words.index("--state") + 1]) == (
        "/trial",
        "/trial/server",
    )


@pytest.mark.parametrize("name", HOSPITALS)
def test_a_hospital_has_all_that_its_file_names(machines, name):
    file = COMPOSE[name]["command"].split()[-1].removeprefix("/trial/")
    policy = Policy.load(machines[name] / file)
    site = policy.site
    assert (site.name, site.server) == (name, "server:9400")
    assert all(policy.path(each).is_file() for each in (site.key, site.ca, site.shared))
    assert policy.path(site.data.path).is_file()
    policy.check("", config.load(DEPLOY / "experiment.toml"))


def rendered(**values):
    """The chart's documents, with some values by dotted key."""
    table = yaml.safe_load((CHART / "values.yaml").read_text())
    for key, value in values.items():
        *sections, last = key.split("__")
        here = table
        for section in sections:
            here = here[section]
        here[last] = value
    jsonschema.validate(table, json.loads((CHART / "values.schema.json").read_text()))
    sources = {path.name: path.read_text() for path in (CHART / "templates").iterdir()}
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    told = {
        "Values": table,
        "Release": {"Name": "trial"},
        "Chart": {"AppVersion": chart["appVersion"]},
    }
    texts = HelmTemplateEngine.from_sources(sources).render(dict.fromkeys(sources, told))
    return {each["kind"]: each for each in yaml.safe_load_all(texts["party.yaml"])}


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ({"role": "server"}, {"StatefulSet", "Service"}),
        ({"role": "server", "storage__className": "fast"}, {"StatefulSet", "Service"}),
        ({"role": "site", "site__dataClaim": "records"}, {"StatefulSet", "NetworkPolicy"}),
    ],
)
def test_the_chart_is_what_a_cluster_takes(values, kinds):
    documents = rendered(**values)
    assert set(documents) == kinds
    for document in documents.values():
        kubernetes_validate.validate(document, "1.33", strict=True)
    pod = documents["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    [container] = pod["containers"]
    volumes = {volume["name"] for volume in pod["volumes"]} | {"state"}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert container["args"][:2] == ["deploy", {"server": "server"}.get(values["role"], "client")]


def test_a_site_without_data_is_refused():
    with pytest.raises(gotpl.TemplateExecutionError, match=r"site\.dataClaim is empty"):
        rendered(role="site")


def test_helm_takes_the_chart():
    done = tool("helm", "lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout
