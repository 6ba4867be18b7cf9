"""An experiment for one's own file: what is written runs, and what is missing is said."""

import json
import tomllib

import numpy as np
import pytest
from PIL import Image

from fedkd import config
from fedkd.data.looking import Guess, Looked, Wished
from fedkd.errors import ConfigError, UsageError
from fedkd.jobs.init import init
from fedkd.jobs.init.plan import plan
from fedkd.jobs.simulate import simulate


def patients(path, *, seed=0, rows=240):
    """A table with all that tables have: a number for each row, a date, words, gaps, hospitals."""
    draw = np.random.default_rng(seed)
    lines = ["patient,visit,hospital,age,weight,pain,diagnosis"]
    for n in range(rows):
        ill = int(draw.integers(2))
        weight = "" if n % 9 == 5 else f"{draw.normal(70 + 20 * ill, 9):.1f}"
        cells = [f"P{n}", f"2024-{1 + n % 12:02d}-03", "abc"[n % 3], draw.integers(20, 80), weight]
        cells.append(f"rare{seed}" if n == seed else ("none", "chest")[n % 2])
        lines.append(",".join(map(str, [*cells, ("well", "ill")[ill]])))
    path.write_text("\n".join(lines) + "\n")
    return path


def shares(path, **changes):
    draw = np.random.default_rng(0)
    arrays = {}
    for part, size in (("train", 120), ("test", 40)):
        arrays[f"x_{part}"] = draw.integers(0, 255, (size, 14, 14), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(size) % 3
    np.savez(path, **(arrays | changes))
    return path


def masks(folder):
    draw = np.random.default_rng(0)
    for part in ("train/a", "train/b", "test"):
        for kind, most in (("images", 255), ("masks", 2)):
            (folder / part / kind).mkdir(parents=True)
            for n in range(8):
                pixels = draw.integers(0, most, (16, 16), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / kind / f"{n}.png")
    return folder


WRITERS = {
    "patients.csv": patients,
    "shares.npz": shares,
    "masks": masks,
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_init_writes_runs_as_it_is(name, here):
    data = WRITERS[name](here / name)
    done = init(data, None, Wished())
    text = done.file.read_text()
    assert tomllib.loads(text)["data"]["name"] == str(data)
    experiment = config.load(done.file, ["rounds=1", "clients.training.epochs=1"])
    summary = simulate(experiment, here / "run")
    assert summary["student"]


def test_a_table_with_all_that_tables_have_is_told_apart(here):
    told = {g.key: g.value for g in init(patients(here / "a.csv"), None, Wished()).guesses}
    assert told["data.ignore"] == ["patient", "visit"]
    assert (told["data.label"], told["data.client"]) == ("diagnosis", "hospital")
    assert (told["data.missing"], told["data.scale"]) == ("indicate", "public")
    assert told["data.partition.scheme"] == "natural"
    assert told["data.codes"] == {"pain": ["chest", "none", "*"]}
    public = {g.key: g.value for g in init(here / "a.csv", here / "b.toml", _knowing(here)).guesses}
    assert public["data.codes"] == {"pain": "public"}


def _knowing(here):
    """A public file of the same columns, which knows a word more."""
    rows = patients(here / "known.csv", seed=5).read_text().replace("none", "back", 1)
    (here / "known.csv").write_text(rows)
    return Wished(public=str(here / "known.csv"))


def test_a_file_for_each_client_is_told_by_its_folder(here):
    (here / "hospitals").mkdir()
    for n in range(3):
        patients(here / "hospitals" / f"{n}.csv", seed=n, rows=100)
    done = init(here / "hospitals", None, Wished())
    data = config.load(done.file).data
    assert [path[-5:] for path in data.clients] == ["0.csv", "1.csv", "2.csv"]
    assert data.partition.scheme == "natural"


def test_what_is_written_tells_nothing_of_single_rows(here):
    """Other parties see the file: other rows of the same kind must give the very same one."""
    texts = []
    for seed, rows in ((0, 240), (1, 243)):
        (file := here / "a.toml").unlink(missing_ok=True)
        init(patients(here / "a.csv", seed=seed, rows=rows), file, Wished())
        texts.append(file.read_text())
    assert texts[0] == texts[1]


def test_a_file_that_is_there_stays_as_it_is(here):
    (here / "mine.toml").write_text("kept")
    for file in (here / "mine.toml", None):
        with pytest.raises(UsageError, match=r"mine\.toml: is there already"):
            init(shares(here / "mine.npz"), file, Wished())
    assert (here / "mine.toml").read_text() == "kept"


def test_what_is_missing_is_said_and_nothing_is_written(here):
    rows = (f"this is text number {n},{n % 2}" for n in range(60))
    (here / "t.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    with pytest.raises(ConfigError, match=r"t\.csv: public texts are missing.*--public"):
        init(here / "t.csv", None, Wished())
    with pytest.raises(ConfigError, match=r"no experiment was written, since .*unknown task"):
        init(shares(here / "s.npz"), None, Wished(task="clasification"))
    wrong = shares(here / "f.npz", y_test=np.full(40, 7))
    with pytest.raises(ConfigError, match=r"no experiment was written, since .*y_test"):
        init(wrong, None, Wished())
    assert not list(here.glob("*.toml"))


def test_the_only_file_of_a_folder_is_found_and_several_are_named(here):
    with pytest.raises(UsageError, match=r"--data is missing.*none"):
        init(None, None, Wished())
    shares(here / "one.npz")
    assert init(None, None, Wished()).file.name == "one.toml"
    shares(here / "two.npz")
    with pytest.raises(UsageError, match=r"--data is missing.*one\.npz, two\.npz"):
        init(None, None, Wished())


def test_sizes_and_limits_are_rounded_so_that_records_are_not_told():
    guesses = (Guess("task.name", "regression"), Guess("data.label", "y"))
    for records, low, high, size, limits in (
        (442, 25.0, 346.0, 80, [0, 1000]),
        (499, 31.0, 101.0, 90, [0, 1000]),
        (99_999, -3.0, 10.0, 2000, [-10, 10]),
    ):
        y = _number("y", low, high)
        found = Looked("a.csv", "a table", records, columns=(y,), guesses=guesses)
        told = {guess.key: guess.value for guess in plan(found, Wished())}
        assert (told["data.public.size"], told["task.limits"]) == (size, limits)


def _number(name, low, high):
    from fedkd.data.looking import Column

    return Column(name, "number", low=low, high=high, distinct=50)


def test_commands_check_and_init_say_what_they_found_and_why(run, here):
    patients(here / "a.csv")
    status, out, complaint = run("data", "check", "a.csv")
    assert (status, complaint) == (0, "")
    shown = " ".join(out.split())
    for part in ("for their owner alone", "'diagnosis'", "'visit' dates", "data.missing"):
        assert part in shown
    found = json.loads(run("data", "check", "a.csv", "--json")[1])
    assert found["records"] == 240
    assert {each["about"] for each in found["concerns"]} >= {"patient", "visit"}
    status, out, complaint = run("init", "--data", "a.csv", "--json")
    assert (status, complaint) == (0, "")
    assert json.loads(out)["file"] == str(here / "a.toml")
    private = [each["key"] for each in json.loads(out)["guesses"] if each["private"]]
    assert private == ["data.codes"]
    assert (here / "a.toml").read_text().count("FROM YOUR RECORDS") == 1
    status, out, _ = run("init", "--data", "a.csv", "--out", "b.toml")
    assert "before others see b.toml: put in what is publicly known" in " ".join(out.split())
    status, _, complaint = run("init", "--data", "a.csv")
    assert status == 2
    assert complaint.count("\n") == 1


def test_names_in_a_file_cannot_steer_a_terminal_or_a_config(run, here):
    header = '"\x1b[31mred\n[method]\nname = 1",size,label\n'
    (here / "b.csv").write_text(header + "".join(f"{n % 7},{n % 11},{n % 2}\n" for n in range(200)))
    for command in (("data", "check", "b.csv"), ("init", "--data", "b.csv")):
        status, out, complaint = run(*command)
        assert (status, complaint) == (0, "")
        assert "\x1b" not in out
    assert tomllib.loads((here / "b.toml").read_text())["method"]["name"] == "fedmd"
