"""A deployment on a real SuperLink and three SuperNodes: what holds when parties fail and lie."""

import json
import re
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from signal import SIGINT, SIGKILL

import faulty
import processes
import pytest
import staged
import tiny
from cryptography.hazmat.primitives import serialization
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from processes import PATIENCE, alive, kill, wait_until

from fedkd.config import load
from fedkd.config.robust import Robust
from fedkd.errors import FederationError, UsageError
from fedkd.federation.client import ClientParty, client_app
from fedkd.federation.deploy import keys
from fedkd.federation.deploy.processes import free_port
from fedkd.federation.deploy.superlink import READY, Server
from fedkd.federation.inprocess import InProcessGrid
from fedkd.federation.prepare import prepare
from fedkd.federation.rounds import federate
from fedkd.federation.state import MemoryState
from fedkd.jobs.local import lay_out
from fedkd.jobs.watch import AskedServer, watched
from fedkd.privacy.ledger import read_statements
from fedkd.runs.folder import RunFolder
from fedkd.runs.ledgers import read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc"),
]

SITE_MARK = "FEDKD_TEST_SITE"
ROUNDS = 6
FAULTS = {
    "2-0": "raises",
    "2-1": "floods",
    "3-0": "answers with an error",
    "3-1": "answers with words for numbers",
    "4-0": "fails in words of its own",
    "4-1": "answers with garbage",
    "5-0": "holds",
    "5-1": "exits",
    "6-2": "holds",
}
GONE = "its node was not available"
REASONS = [
    (2, 0, "RuntimeError while training"),
    (2, 1, "message is larger than"),
    (3, 0, "its app raised an exception"),
    (3, 1, "answer is not a fedkd message"),
    (4, 0, "Exception"),
    (4, 1, "message is not valid safetensors"),
    (5, 0, GONE),
    (5, 1, "its app crashed"),
]


class Federation:
    """A server and three sites, two of which lie when they are told to."""

    def __init__(self, folder, rows):
        self.folder, self.place = folder, folder / "federation"
        self.hold = folder / "hold"
        self.hold.mkdir()
        self.mark = str(folder)
        self.env = processes.environment(self.mark, **{staged.HOLD: str(self.hold)})
        changes = {
            "rounds": ROUNDS,
            "clients.count": 3,
            "clients.deadline": PATIENCE,
            "clients.quorum": 0.3,
            "method": {"name": "staged:Staged", "faults": FAULTS},
        }
        self.config = tiny.write_config(folder / "staged.toml", rows, changes)
        # Or each process looks for the least noise, which takes seconds, and counts under less
        # noise on a longer grid.
        privacy = {"epsilon": 8.0, "noise_multiplier": 4.0, "sample_rate": 0.2, "spare_rounds": 1}
        changes = {
            "name": "private",
            "rounds": 3,
            "clients.count": 3,
            "clients.deadline": PATIENCE,
            "method": {"name": "staged:Staged", "faults": {"1-0": "holds", "2-1": "holds"}},
            "privacy": privacy,
        }
        self.private = tiny.write_config(folder / "private.toml", rows, changes)
        lay_out(load(self.config), self.place)
        self.state = self.place / "server"
        self.port = int((self.place / "port").read_text())
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.server, self.sites = None, {}

    def start_server(self):
        if self.server is not None:
            self.server.wait(PATIENCE)
        (self.state / READY).unlink(missing_ok=True)
        command = ["deploy", "server", "--state", self.state, "--keys", self.place]
        self.server = processes.start(
            ["-m", "fedkd", *command, "--host", "127.0.0.1", "--port", self.port],
            self.logs / "server.log",
            self.env,
        )
        wait_until((self.state / READY).exists)

    def kill_site_0(self):
        """Kill its main process alone; the others follow it, and the server learns of it.

        Left alone it would miss the site after a minute; that is Flower's affair, and a machine
        that is busy for a minute would lose other sites too.
        """
        kill(self.sites[0])
        mark = f"{self.mark}-0"
        wait_until(lambda: not alive(mark, name=SITE_MARK))
        key = serialization.load_ssh_private_key(
            (self.place / keys.CLIENTS / "client-0000").read_bytes(), password=None
        )
        with FleetHttpClient.from_server_address(
            f"127.0.0.1:{self.port}",
            insecure=False,
            root_certificates=(self.place / keys.CA).read_bytes(),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, key.public_key()),
            ],
        ) as client:
            node = int((self.place / "sites" / "client-0000" / "state" / "node").read_text())
            client.DeactivateNode(DeactivateNodeRequest(node_id=node))

    def online(self):
        """Whether the server sees every site."""
        with Server.read(self.state).control() as control:
            return all(node.online for node in control.nodes())

    def start_site(self, client):
        name = f"client-{client:04d}"
        script = [processes.HERE / "hostile_client.py"] if client < 2 else ["-m", "fedkd"]
        script += [] if client < 2 else ["deploy", "client"]
        self.sites[client] = processes.start(
            [*script, self.place / "sites" / name / "SITE.toml"],
            self.logs / f"{name}.log",
            {**self.env, SITE_MARK: f"{self.mark}-{client}"},
        )

    def submit(self, config, run, *more):
        """Submit in the background; the process, and where its output goes."""
        command = ["deploy", "submit", config, "--state", self.state, "--out", run, *more]
        shared = ["--shared", self.place / "shared.safetensors"]
        output = self.logs / f"submit-{len(list(self.logs.iterdir()))}.log"
        return processes.start(["-m", "fedkd", *command, *shared], output, self.env), output

    def reached(self, round, client):
        return (self.hold / f"{round}-{client}.reached").exists


@pytest.fixture(scope="module")
def federation(tmp_path_factory, rows):
    made = Federation(tmp_path_factory.mktemp("deployment"), rows)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(staged.HOLD, str(made.hold))
        made.start_server()
        for client in range(3):
            made.start_site(client)
        try:
            yield made
        finally:
            for process in [*made.sites.values(), made.server]:
                process.terminate()
                process.wait(PATIENCE)
    wait_until(lambda: not alive(made.mark))


@pytest.fixture(scope="module")
def broken(federation):
    """A run in which clients lie, one is killed and comes back, and then the server is killed."""
    run = federation.folder / "run"
    for name in ("5-0", "6-2"):
        (federation.hold / name).touch()
    submitted, _ = federation.submit(federation.config, run)
    wait_until(federation.reached(5, 0))
    federation.kill_site_0()
    (federation.hold / "5-0").unlink()

    wait_until(federation.reached(6, 2))
    kill(federation.server)
    federation.start_server()
    federation.start_site(0)
    status = submitted.wait(PATIENCE)
    (federation.hold / "6-2").unlink()
    wait_until(federation.online)
    resumed, output = federation.submit(federation.config, run, "--resume")
    assert resumed.wait(PATIENCE) == 0, output.read_text()
    return {"run": run, "status": status, "output": output.read_text()}


def test_a_run_broken_by_crashes_and_lies_ends_as_an_unbroken_simulation(federation, broken):
    experiment = load(federation.config)
    # In a simulation nobody is killed: who was killed in its round has simply failed it.
    quick = {**FAULTS, "2-1": "sends far too much", "5-0": "raises", "6-2": ""}
    method = experiment.method.model_copy(update={"faults": quick})
    # A deployment screens strangers unless it is told otherwise, a simulation if it is told so.
    prepared = prepare(experiment.model_copy(update={"method": method, "robust": Robust()}))
    reference = RunFolder(federation.folder / "simulated")
    reference.open(prepared.experiment, prepared.data, resume=False)
    states = [MemoryState() for _ in range(3)]
    app = client_app(lambda context, call: ClientParty(prepared, states[call.client]))
    with InProcessGrid(staged.StagedApp(app, quick), nodes=3, threads=1) as grid:
        student = federate(grid, prepared, reference, tiny.Quiet(), threads=1)
    reference.finish(student.state_dict(), {})

    assert broken["status"] == 1  # the command that lost its server said so
    assert tiny.student_hash(broken["run"]) == tiny.student_hash(reference.path)
    assert [r["participants"] for r in tiny.rounds(broken["run"])] == [
        [0, 1, 2], [2], [2], [2], [2], [0, 1, 2],
    ]  # fmt: skip


def test_each_lie_is_left_out_with_a_scrubbed_reason(broken):
    failures = tiny.failures(broken["run"])
    assert [failure[:2] for failure in failures] == [reason[:2] for reason in REASONS]
    for failure, reason in zip(failures, REASONS, strict=True):
        assert failure[2].startswith(reason[2])


def test_no_secret_reaches_the_server(federation, broken):
    places = [broken["run"], federation.state, federation.logs / "server.log"]
    places += list(federation.logs.glob("submit-*"))
    files = [f for p in places for f in (p.rglob("*") if p.is_dir() else [p]) if f.is_file()]
    assert len(files) > 10
    secret = faulty.SECRET.encode()
    held = [f.name for f in files if secret in f.read_bytes()]
    # The server's database holds a message until it has been read, whatever is in it.
    assert held in ([], ["flower.db-wal"], ["flower.db"])
    # It is there to be found: the sites' own logs have it.
    assert secret in (federation.logs / "client-0000.log").read_bytes()


def test_the_run_folder_is_as_a_simulations(broken):
    names = {path.name for path in broken["run"].iterdir()}
    assert {"config.toml", "rounds.jsonl", "summary.json", "student.safetensors"} <= names
    page = (broken["run"] / "report.html").read_text()
    assert "its own data, apart from the others" in page
    assert "Each client has the receipts of what left it" in page
    assert "report:" in broken["output"]
    assert "round   6" in broken["output"]


@pytest.fixture
def capped(federation):
    """Every site asks for protection, and caps what may be spent; one has been started so."""
    files = {site / "SITE.toml" for site in (federation.place / "sites").iterdir()}
    before = {file: file.read_text() for file in files}
    cap = '[privacy]\nunit = "record"\nepsilon = 8.0\ndelta = 1e-05'
    for file, text in before.items():
        file.write_text(text.replace('[privacy]\nunit = "none"', cap))
    federation.sites[2].terminate()
    assert federation.sites[2].wait(PATIENCE) == 0
    federation.start_site(2)
    wait_until(federation.online)
    yield
    for file, text in before.items():
        file.write_text(text)


def test_an_experiment_that_a_site_refuses_is_refused_in_words(federation):
    config = federation.folder / "long.toml"
    config.write_text(federation.config.read_text().replace(f"rounds = {ROUNDS}", "rounds = 101"))
    run = federation.folder / "refused"
    submitted, output = federation.submit(config, run)
    assert submitted.wait(PATIENCE) == 1
    text = output.read_text()
    assert "its site's policy does not allow it" in text
    log = (federation.logs / "client-0002.log").read_text()
    assert "refused by SITE.toml: limits.rounds = 100, and the experiment has 101 rounds" in log


def test_a_client_killed_in_a_round_comes_back_with_its_ledger(federation, capped):
    run = federation.folder / "private-run"
    (federation.hold / "1-0").touch()
    submitted, output = federation.submit(federation.private, run)
    (federation.hold / "2-1").touch()
    wait_until(federation.reached(1, 0))
    federation.kill_site_0()
    (federation.hold / "1-0").unlink()
    wait_until(federation.reached(2, 1))  # the second round waits for it to come back
    federation.start_site(0)
    wait_until(federation.online)
    (federation.hold / "2-1").unlink()
    assert submitted.wait(PATIENCE) == 0, output.read_text()

    assert tiny.failures(run)[0] == (1, 0, GONE)
    assert 0 in tiny.rounds(run)[-1]["participants"]
    ledgers = [federation.place / f"sites/client-000{i}/state/ledger.db" for i in range(3)]
    [killed], [other], _ = map(read_statements, ledgers)
    assert killed.chain == other.chain == "intact"
    states = [release["state"] for release in killed.releases]
    assert (states[0], states[-1]) == ("touched", "sent")
    assert [release["state"] for release in other.releases] == ["sent"] * 3
    assert killed.epsilon <= 8 == killed.allowed
    with pytest.raises(UsageError, match=r"was deployed, .* its state folder's ledger\.db"):
        read(run)


def test_what_speaks_no_tls_or_has_no_key_or_another_name_is_refused(federation, tmp_path):
    address = f"127.0.0.1:{federation.port}"
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(f"http://{address}/health", timeout=PATIENCE)

    ca = ssl.create_default_context(cafile=str(federation.place / keys.CA))
    with (
        socket.create_connection(("127.0.0.1", federation.port), PATIENCE) as plain,
        pytest.raises(ssl.SSLCertVerificationError, match=r"hospital\.example"),
    ):
        ca.wrap_socket(plain, server_hostname="hospital.example")
    with socket.create_connection(("127.0.0.1", federation.port), PATIENCE) as plain:
        ca.wrap_socket(plain, server_hostname="127.0.0.1").close()

    keys.make(tmp_path, servers=["127.0.0.1"], clients=["stranger"])
    key = ["--auth-supernode-private-key", tmp_path / keys.CLIENTS / "stranger"]
    for ca_file, known_by, complaint in (
        (federation.place / keys.CA, key, "[code: 2004] Failed to activate"),
        (federation.place / keys.CA, [], "Failed to initialize the connection"),
        (tmp_path / keys.CA, key, "CERTIFICATE_VERIFY_FAILED"),
    ):
        log = tmp_path / "stranger.log"
        stranger = processes.start(
            [
                Path(sys.executable).parent / "flower-supernode",
                *("--superlink", address, "--root-certificates", ca_file),
                *known_by,
                *("--port", str(free_port()), "--isolation", "process", "--max-retries", "1"),
            ],
            log,
            {**federation.env, "FLWR_HOME": str(tmp_path)},
        )
        try:
            assert stranger.wait(PATIENCE) != 0
        finally:
            stranger.kill()
        assert complaint in log.read_text()
        log.unlink()
    with Server.read(federation.state).control() as control:
        assert [node.name for node in control.nodes()] == [f"client-000{i}" for i in range(3)]


def test_a_live_sites_key_at_a_second_machine_is_told_that_it_is_connected(federation):
    wait_until(federation.online)
    place = federation.place / "sites" / "client-0002"
    second = place / "SECOND.toml"
    second.write_text((place / "SITE.toml").read_text().replace('"state"', '"second-state"'))
    log = federation.logs / "second.log"
    command = ["-m", "fedkd", "deploy", "client", second]
    started = processes.start(command, log, federation.env)
    assert started.wait(PATIENCE) != 0
    said = log.read_text()
    assert "a site with its key is already connected" in said
    assert "not among the clients'" not in said
    assert federation.online()
    # A site that was killed and comes back says itself that it was gone, and is let in at once.
    kill(federation.sites[2])
    wait_until(lambda: not alive(f"{federation.mark}-2", name=SITE_MARK))
    node = place / "state" / "node"
    node.write_text(node.read_text() + " ")
    federation.start_site(2)
    wait_until(lambda: not node.read_text().endswith(" "))
    assert "already connected" not in (federation.logs / "client-0002.log").read_text()


def test_a_round_waits_for_nobody_past_its_deadline(federation, rows):
    held = [federation.hold / f"1-{client}" for client in range(3)]
    faults = {file.name: "holds" for file in held}
    changes = {
        "clients.count": 3,
        "clients.deadline": 5.0,
        "method": {"name": "staged:Staged", "faults": faults},
    }
    config = tiny.write_config(federation.folder / "late.toml", rows, changes)
    for file in held:
        file.touch()
    try:
        submitted, output = federation.submit(config, federation.folder / "late")
        assert submitted.wait(PATIENCE) == 1
    finally:
        for file in held:
            file.unlink()
    # Flower gives a call up at the same moment, and may be the first to say so.
    late = r"no answer within 5 s|the call was lost"
    assert re.search(rf"round 1: 0 of 3 clients answered .*: ({late}) \(", output.read_text())


def test_status_and_stop(federation, broken):
    command = [sys.executable, "-m", "fedkd", "deploy"]
    state = ["--state", str(federation.state)]
    told = subprocess.run(
        [*command, "status", *state, "--json"],
        env=federation.env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    status = json.loads(told.stdout)
    assert [client["online"] for client in status["clients"]] == [True] * 3
    assert {run["status"] for run in status["runs"]} >= {"finished:completed", "finished:failed"}
    (federation.hold / "6-2").touch()
    (federation.hold / "5-0").touch()
    submitted, output = federation.submit(federation.config, federation.folder / "stopped")
    progress = federation.folder / "stopped" / "progress.jsonl"
    wait_until(lambda: progress.exists() and "round_begins" in progress.read_text())
    with AskedServer(progress.parent, federation.state) as server:
        page = watched(progress.parent, server)
        shown = wait_until(
            lambda: (now := page.look())["run"]["stop"] and now["run"]["clients"] and now
        )
        assert shown["says"].startswith("Running: round ")
        asked = shown["run"]["clients"]["phases"][0]["clients"]
        assert {each["name"] for each in asked} <= {c["name"] for c in status["clients"]}
        with pytest.raises(FederationError, match="this run is over, another one was begun"):
            page.stop(1)
        page.stop(int(shown["run"]["stop"]))
        wait_until(lambda: page.look()["state"] == "stopped")
    subprocess.run([*command, "stop", *state, "--server"], env=federation.env, check=True)
    assert submitted.wait(PATIENCE) == 1
    assert "it was stopped" in output.read_text() or "no server answers" in output.read_text()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # old connections linger
        probe.bind(("127.0.0.1", federation.port))
    (federation.hold / "6-2").unlink()
    (federation.hold / "5-0").unlink()
    own = ("flower-superexec", "flwr-serverapp")
    wait_until(lambda: not [c for c in alive(federation.mark).values() if any(n in c for n in own)])

    # A key that is taken away is let in no more, a new one is.
    (federation.place / keys.CLIENTS / "client-0002.pub").unlink()
    keys.make(federation.place, servers=[], clients=["newcomer"])
    federation.start_server()
    with Server.read(federation.state).control() as control:
        assert [node.name for node in control.nodes()] == ["client-0000", "client-0001", "newcomer"]


def test_a_trial_that_is_killed_or_interrupted_leaves_no_process(tmp_path, rows):
    config = tiny.write_config(tmp_path / "tiny.toml", rows, {"clients.count": 2, "rounds": 50})
    env = processes.environment(str(tmp_path))
    for signal, more in ((SIGKILL, []), (SIGINT, ["--resume"])):
        log = tmp_path / f"{signal.name}.log"
        command = ["-m", "fedkd", "deploy", "local", config, "--out", tmp_path / "run", *more]
        trial = processes.start(command, log, env)
        ready = tmp_path / "run-federation" / "server" / READY
        wait_until(ready.exists)
        assert len(wait_until(lambda: len(alive(str(tmp_path))) > 5 and alive(str(tmp_path)))) > 5
        trial.send_signal(signal)
        status = trial.wait(PATIENCE)
        assert status == (-SIGKILL if signal == SIGKILL else 130), log.read_text()
        wait_until(lambda: not alive(str(tmp_path)))
        ready.unlink(missing_ok=True)
