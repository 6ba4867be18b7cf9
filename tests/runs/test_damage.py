"""A run folder that was damaged never lies: the same student, or one line that names the file.

Three small runs of three rounds are killed after round 2 once; each test damages a copy of one and
resumes it.
"""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import tiny
from damages import DAMAGES, put_back
from safetensors import safe_open
from safetensors.torch import save_file

from fedkd import config
from fedkd.errors import FedkdError, LedgerError, RunFolderError
from fedkd.federation import engines
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate_world
from fedkd.reports import report
from fedkd.runs.folder import RunFolder

BASE = {
    "rounds": 3,
    "clients.count": 2,
    "clients.models": [{"name": "mlp", "hidden": [4]}],
    "student.model": {"name": "mlp", "hidden": [4]},
    "method": {"name": "fedmd", "student": {"epochs": 1}},
    "engine.threads": 1,
}
DP = {"privacy.epsilon": 8.0, "privacy.noise_multiplier": 2.0, "privacy.sample_rate": 0.5}
VOTES = {
    "clients.count": 20,
    "method": {"name": "dsfl"},
    "privacy": {"unit": "client-votes", "epsilon": 20.0, "delta": 1e-3, "noise_multiplier": 4.0},
}


class KilledError(Exception):
    """The process dies here."""


class Saving(tiny.Quiet):
    """Copies the folder after round 1, and dies after round 2 if it is told to."""

    def __init__(self, run: Path, *, dies: bool) -> None:
        self.run, self.dies = run, dies

    def round_ends(self, record):
        if record["round"] == 1:
            shutil.copytree(self.run, self.run.with_name("older"))
        if record["round"] == 2 and self.dies:
            raise KilledError


class DyingLater(RunFolder):
    """A run folder whose process dies before it keeps round 3."""

    def keep(self, record, checkpoint, generated):
        if record["round"] == 3:
            raise KilledError
        super().keep(record, checkpoint, generated)


class Case:
    """A killed run, what it looked like after round 1, another one, and how it must end."""

    def __init__(self, place: Path, rows: Path, changes, *, late: bool = False) -> None:
        self.prepared = prepare(tiny.experiment(rows, {**BASE, **changes}))
        self.killed, self.older = place / "killed", place / "older"
        self.other = place / "other" / "killed"
        self._kill(self.prepared, self.killed, late=late)
        other = prepare(tiny.experiment(rows, {**BASE, **changes, "seed": 8}))
        self._kill(other, self.other, late=late)
        whole = place / "whole"
        shutil.copytree(self.killed, whole)
        simulate_world(self.prepared, whole, tiny.Quiet(), resume=True)
        self.student = tiny.student_hash(whole)

    def _kill(self, prepared, folder, *, late):
        run = (DyingLater if late else RunFolder)(folder)
        run.open(prepared.experiment, prepared.data, resume=False)
        watcher = Saving(folder, dies=not late)
        with pytest.raises(KilledError):
            engines.simulate(prepared, run, watcher, states=run.states)


@pytest.fixture(scope="module", autouse=True)
def no_report():
    """A page of charts is none of what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write", lambda folder: None)
        yield


@pytest.fixture(scope="module")
def plain(rows, tmp_path_factory):
    return Case(tmp_path_factory.mktemp("plain"), rows, {})


@pytest.fixture(scope="module")
def private(rows, tmp_path_factory):
    """Killed in round 3, when its answers were made and paid for: they are sent again."""
    return Case(tmp_path_factory.mktemp("private"), rows, DP, late=True)


@pytest.fixture(scope="module")
def votes(rows, tmp_path_factory):
    return Case(tmp_path_factory.mktemp("votes"), rows, VOTES)


INDEX = "checkpoints/clients/store/index.db"
CONTENTS = "checkpoints/clients/store/000001.bin"
SERVER = "checkpoints/server.safetensors"
LEDGER = "checkpoints/clients/client-0000/ledger.db"
OF_SERVER = set(DAMAGES) - {"another client's"}
STATIC = OF_SERVER - {"an older one", "another run's"}


def cases(files):
    return [
        (file, damage) for file, damages in files.items() for damage in DAMAGES if damage in damages
    ]


PLAIN = cases({
    SERVER: OF_SERVER,
    "rounds.jsonl": OF_SERVER,
    "partition.json": STATIC,
    "environment.json": STATIC,
    "config.toml": STATIC - {"middle bit", "late bit"},  # which may say where and how fast it runs
})  # fmt: skip
PRIVATE = cases({
    SERVER: {"middle bit", "deleted", "another run's"},
    INDEX: {"first bit", "half", "deleted"},
    CONTENTS: {"half", "20 bytes fewer", "deleted"},
    LEDGER: {"early bit", "middle bit", "half", "deleted", "junk", "another client's"},
    f"{LEDGER}.seal": {"first bit", "deleted", "empty", "another client's"},
    f"{LEDGER}.key": {"first bit", "deleted", "another client's"},
})  # fmt: skip
VOTING = cases({
    "checkpoints/ledger.db": {"middle bit", "half", "deleted", "an older one", "another run's"},
})  # fmt: skip
HARMLESS = {
    # What it names was kept as it was then: round 2 runs again.
    (SERVER, "an older one"),
}


class Idle(tiny.Quiet):
    """An observer before whom no round begins."""

    def round_begins(self, round, cohort):
        raise AssertionError("it trains")


def damaged(case, folder, name, damage):
    shutil.copytree(case.killed, folder)
    DAMAGES[damage](folder, name, case.other, case.older)
    return folder


def stored(run, what, round):
    """Where client 0's state or answer of a round stands in the contents: a slice."""
    with closing(sqlite3.connect(run / INDEX)) as index:
        found = "SELECT file, start, size FROM kept WHERE client = 0 AND what = ? AND round = ?"
        [(file, start, size)] = index.execute(found, (what, round)).fetchall()
    assert file == 1
    return slice(start, start + size)


def flip_stored(run, what, round):
    place, content = stored(run, what, round), bytearray((run / CONTENTS).read_bytes())
    content[(place.start + place.stop) // 2] ^= 0x10
    (run / CONTENTS).write_bytes(content)


def edit_index(run, statement):
    with closing(sqlite3.connect(run / INDEX)) as index:
        assert index.execute(statement).rowcount == 1
        index.commit()


def assert_refused(case, folder, *names):
    with pytest.raises(FedkdError) as refused:
        simulate_world(case.prepared, folder, Idle(), resume=True)
    assert refused.value.exit_status == 2
    assert "\n" not in str(refused.value)
    assert all(name in str(refused.value) for name in names)


@pytest.mark.parametrize(("name", "damage"), PLAIN)
def test_a_damaged_run_ends_in_the_same_student_or_names_the_file(plain, tmp_path, name, damage):
    run = damaged(plain, tmp_path / "run", name, damage)
    if (name, damage) in HARMLESS:
        simulate_world(plain.prepared, run, tiny.Quiet(), resume=True)
        assert tiny.student_hash(run) == plain.student
    else:
        assert_refused(plain, run, name.removeprefix("checkpoints/"))


@pytest.mark.parametrize("damage", sorted(OF_SERVER))
@pytest.mark.parametrize("name", [INDEX, CONTENTS])
def test_so_does_one_whose_store_is_of_which_much_is_needed_no_more(plain, tmp_path, name, damage):
    run = damaged(plain, tmp_path / "run", name, damage)
    refusal = None
    try:
        simulate_world(plain.prepared, run, tiny.Quiet(), resume=True)
    except FedkdError as error:
        refusal = error
    if refusal is None:
        assert tiny.student_hash(run) == plain.student
        assert damage.endswith(("bit", "fewer"))
    else:
        assert refusal.exit_status == 2
        assert "\n" not in str(refusal)
        assert "checkpoints/clients/store/" in str(refusal)


@pytest.mark.parametrize(("name", "damage"), PRIVATE)
def test_so_does_a_private_one_with_its_ledgers_and_answers(private, tmp_path, name, damage):
    run = damaged(private, tmp_path / "run", name, damage)
    file = Path(name)
    ledger = file.name.startswith("ledger.db")
    assert_refused(private, run, file.parent.name, "ledger.db" if ledger else file.name)


def test_a_state_that_a_run_goes_on_from_is_looked_at(plain, tmp_path):
    run = shutil.copytree(plain.killed, tmp_path / "run")
    flip_stored(run, "state", 2)
    assert_refused(plain, run, CONTENTS)


LIES = [
    "DELETE FROM kept WHERE client = 0 AND what = 'state' AND round = 2",
    "UPDATE kept SET round = 3 WHERE client = 0 AND what = 'state' AND round = 2",
    "UPDATE kept SET client = 7 WHERE client = 0 AND what = 'state' AND round = 2",
    "UPDATE kept SET start = start + 8 WHERE client = 0 AND what = 'state' AND round = 2",
    "UPDATE receipts SET released = '[]' WHERE client = 0 AND round = 1",
    "UPDATE receipts SET client = 1 WHERE client = 0 AND round = 1",
    "DELETE FROM receipts WHERE client = 0 AND round = 2",
]


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_was_edited_is_refused(plain, tmp_path, lie):
    run = shutil.copytree(plain.killed, tmp_path / "run")
    edit_index(run, lie)
    assert_refused(plain, run, "checkpoints/clients/store/")


@pytest.mark.parametrize("what", ["state", "answer"])
def test_an_answer_goes_with_the_state_that_it_was_kept_with_or_not_at_all(private, tmp_path, what):
    run = shutil.copytree(private.killed, tmp_path / "run")
    flip_stored(run, what, 3)
    assert_refused(private, run, CONTENTS, "client 0 was about to send in round 3")


@pytest.mark.parametrize(
    "lie",
    [
        "DELETE FROM kept WHERE client = 0 AND what = 'state' AND round = 3",
        "UPDATE receipts SET released = '[]' WHERE client = 0 AND round = 3",
    ],
)
def test_an_answer_without_what_it_was_kept_with_is_refused(private, tmp_path, lie):
    run = shutil.copytree(private.killed, tmp_path / "run")
    edit_index(run, lie)
    assert_refused(private, run, "client 0 was about to send in round 3")


def test_an_undamaged_private_one_goes_on_to_the_same_student(private, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(private.killed, run)
    simulate_world(private.prepared, run, tiny.Quiet(), resume=True)
    assert tiny.student_hash(run) == private.student


@pytest.mark.parametrize(("name", "damage"), VOTING)
def test_so_does_one_whose_server_has_a_ledger(votes, tmp_path, name, damage):
    assert_refused(votes, damaged(votes, tmp_path / "run", name, damage), name)


def test_an_older_copy_of_a_clients_whole_ledger_is_refused(private, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(private.killed, run)
    for suffix in ("", ".seal", ".key"):
        put_back(run, LEDGER + suffix, private.other, private.older)
    assert_refused(private, run, LEDGER, "older copy")


@pytest.fixture(scope="module")
def shared(rows, tmp_path_factory):
    """One client a round, and all spend from one ledger; killed after round 3.

    The same client answers in rounds 1 and 3, so that whoever answered first saw the ledger last.
    """
    place = tmp_path_factory.mktemp("shared")
    changes = {**DP, "clients.participation": 0.5, "privacy.ledger": str(place / "ledgers")}
    changes |= {"rounds": 4, "seed": 5}
    prepared = prepare(tiny.experiment(rows, {**BASE, **changes}))
    one, two, three = (prepared.setting.cohort(round) for round in (1, 2, 3))
    assert one == three != two
    run, older = RunFolder(place / "killed"), place / "older"
    run.open(prepared.experiment, prepared.data, resume=False)

    class Watching(tiny.Quiet):
        def round_ends(self, record):
            if record["round"] == 2:
                shutil.copytree(place / "ledgers", older)
            if record["round"] == 3:
                raise KilledError

    with pytest.raises(KilledError):
        engines.simulate(prepared, run, Watching(), states=run.states)
    return place, prepared


@pytest.mark.parametrize("damage", ["older", "flipped", "whole"])
def test_a_shared_ledger_is_held_against_whoever_saw_it_last(shared, tmp_path, damage):
    place, prepared = shared
    before = shutil.copytree(place / "ledgers", tmp_path / "ledgers")
    run = shutil.copytree(place / "killed", tmp_path / "run")
    ledger = place / "ledgers" / "ledger.db"
    try:
        if damage == "whole":
            assert simulate_world(prepared, run, tiny.Quiet(), resume=True)["rounds"] == 4
            return
        if damage == "older":
            shutil.copytree(place / "older", place / "ledgers", dirs_exist_ok=True)
        else:
            content = bytearray(ledger.read_bytes())
            content[len(content) // 2] ^= 1
            ledger.write_bytes(content)
        with pytest.raises(RunFolderError, match=r"ledger\.db") as refused:
            simulate_world(prepared, run, Idle(), resume=True)
        assert ("older copy" in str(refused.value)) == (damage == "older")
        if damage == "flipped":  # whoever starts anew hears of it before anything is written
            with pytest.raises(LedgerError, match=r"ledger\.db"):
                simulate_world(prepared, tmp_path / "new", Idle())
            assert not (tmp_path / "new").exists()
    finally:
        shutil.copytree(before, place / "ledgers", dirs_exist_ok=True)


def test_what_a_run_does_not_go_on_from_may_be_lost_or_be_there(plain, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(plain.killed, run)
    flip_stored(run, "state", 1)  # an earlier round's
    with (run / CONTENTS).open("ab") as contents:  # a round's that was cut off
        contents.write(b"junk")
    (run / ".rounds.jsonl.tmp").write_bytes(b"junk")
    simulate_world(plain.prepared, run, tiny.Quiet(), resume=True)
    assert tiny.student_hash(run) == plain.student


def test_a_run_whose_own_config_was_changed_does_not_go_on_by_it(plain, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(plain.killed, run)
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("seed = 7", "seed = 5"))
    prepared = prepare(config.load(run / "config.toml"))
    with pytest.raises(RunFolderError, match=r"another experiment than config.toml .*in seed\)"):
        simulate_world(prepared, run, Idle(), resume=True)


def test_a_checkpoint_that_names_no_files_is_an_earlier_fedkds_and_goes_on(plain, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(plain.killed, run)
    with safe_open(run / SERVER, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    kept = {key: metadata[key] for key in ("round", "models", "clients", "standings")}
    save_file(tensors, run / SERVER, kept)
    whole = (run / "rounds.jsonl").read_bytes()
    first, second = whole.splitlines(keepends=True)
    for content in (
        whole[:-1],
        whole[:-20],
        first,
        second + first,
        first + b"{}\n",
        b"junk\n",
        b"",
    ):
        (run / "rounds.jsonl").write_bytes(content)
        assert_refused(plain, run, "rounds.jsonl")
    (run / "rounds.jsonl").write_bytes(whole)
    simulate_world(plain.prepared, run, tiny.Quiet(), resume=True)
    assert tiny.student_hash(run) == plain.student
    assert "an earlier fedkd's" in caplog.text


def test_a_checkpoint_that_was_lost_with_all_lines_is_missed_by_what_clients_kept(votes, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(votes.killed, run)
    for name in (SERVER, "rounds.jsonl"):
        (run / name).unlink()
    assert_refused(votes, run, "server.safetensors is missing")
