import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from example_run import blobs, change, read_lines, write_lines, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.config import Data
from fedkd.errors import RunFolderError
from fedkd.reports import figures, wording
from fedkd.reports.charts.axes import spread
from fedkd.reports.report import write, write_comparison
from fedkd.runs.scores import ACCURACY_ALONE


class Page(HTMLParser):
    """The page's parts that the tests ask for."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text()
        self.tags, self.ids, self.headings, self.links, self.shown = [], [], [], [], []
        self.labels, self.images = [], []
        self.feed(self.source)
        self.text = re.sub(r"\s+", " ", " ".join(self.shown))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[key] for key in ("href", "src", "xlink:href") if key in found]
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.labels += [found["aria-label"]] if found.get("role") == "img" else []
        self.images += [found] if tag == "img" else []

    def handle_data(self, data):
        self.shown.append(data)


def report(path, *, clients=3, rounds=2, classes=("cat", "dog"), **values):
    return Page(write(write_run(path, clients=clients, rounds=rounds, classes=classes, **values)))


def test_one_teacher_has_no_band_and_is_not_all_teachers(tmp_path):
    page = report(tmp_path / "run", clients=1)
    assert "the teacher (dashed) ends at" in page.text
    assert not any(word in page.text for word in ("band: worst to best", "1 teachers"))
    assert "band: worst to best" in report(tmp_path / "more", clients=3).text


def test_says_what_was_run_and_what_came_out(tmp_path):
    run = write_run(tmp_path / "run", clients=10, rounds=5)
    change(
        run,
        student={"accuracy": 0.831, "best_accuracy": 0.84, "model": "lenet5", "parameters": 61_706},
        teachers={"mean_accuracy": 0.5, "best_accuracy": 0.7},
        ensemble={"accuracy": 0.851},
        bytes={"up": 1_234_567, "down": 999},
        seconds=252.4,
    )
    page = Page(write(run))
    assert (
        "Ten clients with three different architectures, each holding a private share of "
        "fashion-mnist-sample (dirichlet, alpha 0.3), taught one lenet5 student by fedmd over five "
        "rounds." in page.text
    )
    for figure in ("83.1%", "+13.1 points", "+33.1 points", "−2.0 points", "1.23 MB", "4 min 12 s"):
        assert figure in page.text
    assert "NO DP No differential privacy." in page.text


def test_is_self_contained_and_accessible(tmp_path):
    page = Page(write(write_run(tmp_path / "run", generated=blobs())))
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not re.search(r"@import|url\((?!#)", page.source)
    assert "script" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", page.source)) <= set(page.ids)
    assert page.headings[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(page.headings))
    assert page.headings.count(1) == 1
    assert len(page.labels) == 2 * page.tags.count("figcaption") - 2  # the gallery has images
    assert all(len(label) > 40 for label in page.labels)
    assert len(page.images) == 10
    assert all("6 generated images for" in image["alt"] for image in page.images)
    assert '<html lang="en">' in page.source


def test_lists_what_left_the_clients(tmp_path):
    run = write_run(tmp_path / "run", clients=2, rounds=1, classes="ab")
    assert "What left the clients" not in Page(write(run)).text
    receipt = {"field": "logits", "provenance": "unprotected", "times": 1200, "bytes": 4_000}
    change(run, released=[receipt])
    assert "logits unprotected 1,200 4.00 kB" in Page(write(run)).text


def test_same_folder_gives_same_page(tmp_path):
    run = write_run(tmp_path / "run", clients=2, classes="ab", generated=blobs(classes=2))
    first = write(run).read_bytes()
    assert write(run).read_bytes() == first
    assert {path.name for path in run.iterdir() if path.name.startswith(".")} == set()


def test_text_from_the_run_is_escaped_and_never_read_as_mathematics(tmp_path):
    classes = ("<b>one</b>", "$\\frac{1}{2}$", "二つ", 'id="x" & "y"')
    page = report(
        tmp_path / "run", clients=2, classes=classes, failures=[(1, 0, "<script>alert()</script>")]
    )
    assert "script" not in page.tags
    assert "b" not in page.tags
    for name in classes:
        assert name in page.text
    assert "<script>alert()</script>" in page.text


def test_captions_name_the_extremes(tmp_path):
    run = write_run(tmp_path / "run", clients=3, rounds=2, classes=("cat", "dog"))
    lines = read_lines(run)
    last = lines[-1]
    last["student"] = {"accuracy": 0.6, "by_class": [0.9, 0.3]}
    accuracies = {"0": 0.5, "1": 0.71, "2": 0.2}
    for client, accuracy in accuracies.items():
        last["teachers"]["by_client"][client] |= {"accuracy": accuracy, "by_class": [0.05, 0.5]}
    lines[0]["student"]["accuracy"] = 0.65
    write_lines(run, lines)
    (run / "partition.json").write_text(
        json.dumps({"classes": ["cat", "dog"], "counts": [[90, 10], [50, 50], [7, 0]]})
    )
    text = Page(write(run)).text
    assert "goes from 65.0% to 60.0% (best: 65.0% in round 1)" in text
    assert "end at 20.0% to 71.0%." in text
    assert "better than 2 of 3 teachers; the best is client 1 (lenet5, 71.0%)" in text
    assert "weakest client 2 (resnet8, 20.0%)" in text
    assert "best at cat (90.0%) and weakest at dog (30.0%)" in text
    assert "in 3 of 6 pairs of client and class the teacher stays under 10%" in text
    assert "Client 0 holds the most samples (100), client 2 the fewest (7)" in text
    assert "half of the clients have 80% of theirs in one class of 2 or fewer" in text


def test_single_round_compares_side_by_side(tmp_path):
    page = report(tmp_path / "run", rounds=1, clients=3)
    assert "over a single round." in page.text
    assert "once" in page.ids
    assert "by-round" not in page.ids
    alone = report(tmp_path / "alone", rounds=1, clients=3, teachers=False, ensemble=False)
    assert not {"once", "by-round", "by-client"} & set(alone.ids)
    assert "vs best teacher" not in alone.text


def test_the_student_within_a_round_is_drawn_where_it_was_measured(tmp_path):
    write_run(tmp_path / "run", rounds=1, clients=3)
    [line] = read_lines(tmp_path / "run")
    line["student"]["curve"] = [0.1, 0.625, 0.5]
    write_lines(tmp_path / "run", [line])
    page = write(tmp_path / "run").read_text(encoding="utf-8")
    assert "In 3 epochs at the server the student goes from 10.0% to 50.0%" in page
    assert "its best is 62.5%, in epoch 2" in page


def test_what_is_missing_is_left_out(tmp_path):
    page = report(tmp_path / "run", teachers=False, ensemble=False, partition=False)
    assert {"by-round", "by-class", "traffic", "time"} <= set(page.ids)
    assert not {"by-client", "partition", "generated"} & set(page.ids)
    assert "class 1" in page.text
    assert "Accuracy of the student by class" in page.text
    assert "every client that was asked answered" in page.text


def test_classes_without_test_samples_are_marked_not_counted(tmp_path):
    run = write_run(tmp_path / "run", clients=2, rounds=1, classes=("a", "b"))
    lines = read_lines(run)
    lines[0]["student"]["by_class"] = [None, 0.5]
    for teacher in lines[0]["teachers"]["by_client"].values():
        teacher["by_class"] = [None, 0.05]
    write_lines(run, lines)
    text = Page(write(run)).text
    assert "best at b (50.0%) and weakest at b (50.0%)" in text
    assert "in 2 of 2 pairs" in text
    lines[0]["student"]["by_class"] = [None, None]
    write_lines(run, lines)
    assert "The test set has no sample of any class." in Page(write(run)).text


def test_failures_are_listed_by_round(tmp_path):
    failures = [(1, 3, "ValueError while training"), (3, 0, "no answer in time")]
    text = report(tmp_path / "run", failures=failures, rounds=3, clients=4).text
    assert "2 of 12 answers did not arrive." in text
    assert re.search("1 3 ValueError while training +3 0 no answer in time", text)
    assert [answers in text for answers in ("3 of 4", "4 of 4")] == [True, True]


@pytest.mark.parametrize(("clients", "classes", "rounds"), [(200, 100, 2), (31, 2, 90), (2, 2, 2)])
def test_many_and_few_stay_drawable(tmp_path, clients, classes, rounds):
    names = [f"class number {label}" for label in range(classes)]
    page = report(tmp_path / "run", clients=clients, classes=names, rounds=rounds)
    assert ("quantiles over clients" in page.text) == (clients > 30)
    assert len(page.source) < 2_000_000


def test_generated_images_keep_their_pixels(tmp_path):
    images, labels = blobs(per_class=2, classes=2, channels=3)
    images[labels == 0] = 0.25  # a generator that collapsed on one class
    images[0, 0, 0, 0] = np.nan
    page = report(tmp_path / "run", classes=("cat", "dog"), generated=(images, labels))
    assert [(i["width"], i["height"]) for i in page.images] == [("57", "28")] * 2
    assert "those made for cat differ least among themselves" in page.text
    only = report(tmp_path / "one", classes=("cat", "dog"), generated=(images[:1], labels[:1]))
    assert "1 image from the generator, none of them a client’s." in only.text
    assert [i["width"] for i in only.images] == ["28"]


@pytest.mark.parametrize(
    ("file", "content", "names"),
    [
        ("config.toml", None, "no config.toml"),
        ("config.toml", b"seed = [", "not valid TOML"),
        ("summary.json", None, "unfinished"),
        ("summary.json", b"{}", "summary.json' is corrupt (name: Field required"),
        ("environment.json", None, "No such file"),
        ("environment.json", b"\xff", "UTF-8"),
        ("rounds.jsonl", b"", "no round"),
        ("rounds.jsonl", b'{"round": 1', "line 1"),
        ("partition.json", b'{"classes": ["a"], "counts": [[1]]}', "1 figures by class, not 10"),
        ("partition.json", b'{"classes": ["a", "b"], "counts": [[1]]}', "2 counts a client, not 1"),
        ("generated.safetensors", b"no tensors", "generated.safetensors"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused_in_one_line(tmp_path, file, content, names):
    run = write_run(tmp_path / "run", rounds=1, clients=2)
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_bytes(content)
    with pytest.raises(RunFolderError) as error:
        write(run)
    assert str(run) in str(error.value)
    assert names in str(error.value)
    assert "\n" not in str(error.value)
    assert not (run / "report.html").exists()


def test_generated_tensors_of_another_shape_are_refused(tmp_path):
    images, labels = blobs(per_class=1)
    run = write_run(tmp_path / "run", rounds=1, clients=2, generated=(images[0], labels))
    with pytest.raises(RunFolderError, match=r"x \(n, C, H, W\)"):
        write(run)


@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=12),
    st.floats(0.5, 20),
)
@settings(deadline=None)
def test_spread_labels_keep_their_order_and_their_distance(positions, gap):
    moved = spread(positions, gap)
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    steps = [moved[b] - moved[a] for a, b in pairwise(order)]
    assert all(step >= gap - 1e-6 for step in steps)
    assert sum(moved) == pytest.approx(sum(positions), abs=1e-6)
    if all(positions[b] - positions[a] > gap for a, b in pairwise(order)):
        assert moved == pytest.approx(positions)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (wording.size(999), "999 B"),
        (wording.size(1000), "1.00 kB"),
        (wording.size(999_499), "999 kB"),
        (wording.size(999_500), "1.00 MB"),
        (wording.size(4.2e13), "42.0 TB"),
        (wording.duration(9.994), "9.99 s"),
        (wording.duration(99.4), "99.4 s"),
        (wording.duration(99.6), "1 min 40 s"),
        (wording.duration(7500), "2 h 05 min"),
        (wording.points(0.01), "+1.0 point"),
        (wording.points(-0.0004), "±0.0 points"),
        (wording.points(-0.052), "−5.2 points"),
        (figures.above(ACCURACY_ALONE[0], 0.0), "level with"),
        (figures.above(ACCURACY_ALONE[0], -0.01), "1.0 point below"),
        (wording.plural(1, "class"), "one class"),
        (wording.plural(13, "class"), "13 classes"),
        (wording.listing("ab"), "a and b"),
        (wording.listing("a"), "a"),
        (wording.listing("abcdefg"), "a, b, c, d and 3 more"),
        (wording.dataset("/data/heart.csv"), "heart.csv"),
    ],
)
def test_numbers_in_words(said, expected):
    assert said == expected


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"scheme": "iid"}, "IID"),
        ({"scheme": "shards", "per_client": 3}, "shards, 3 per client"),
        ({"scheme": "natural"}, "the split that the data brings"),
        ({"scheme": "dirichlet-client", "alpha": 0.05}, "dirichlet-client, alpha 0.05"),
    ],
)
def test_partitions_in_words(split, said):
    assert wording.partition(Data.model_validate({"partition": split})) == said


def comparison(tmp_path, runs):
    out = tmp_path / "compare.html"
    assert write_comparison(runs, out) == out
    return Page(out)


def test_comparison_shows_methods_best_first_and_links_reports(tmp_path):
    runs = [
        write_run(
            tmp_path / f"run {m}{s}",
            name=f"{m}-{s}",
            method=m,
            seed=s,
            rounds=3,
            lift=lift,
            clients=2,
        )
        for m, lift in (("fedmd", 0.0), ("dsfl", 0.05))
        for s in (0, 1)
    ]
    write(runs[0])
    page = comparison(tmp_path, runs)
    assert "Two methods on fashion-mnist-sample, four runs: the best student comes" in page.text
    assert page.text.index("dsfl 2") < page.text.index("fedmd 2")
    assert [link for link in page.links if "report" in link] == ["run%20fedmd0/report.html"]
    assert page.text.count("(no report)") == 3
    assert {"by-method", "by-method-and-round"} <= set(page.ids)
    assert "differences" not in page.ids
    assert "NO DP" in page.text


def test_comparison_of_one_round_draws_no_course(tmp_path):
    runs = [write_run(tmp_path / m, method=m, rounds=1) for m in ("fedmd", "dsfl")]
    page = comparison(tmp_path, runs)
    assert "by-method-and-round" not in page.ids
    assert "with one seed each, chance is not ruled out" in page.text


def test_comparison_says_where_runs_are_not_alike(tmp_path):
    runs = [
        write_run(tmp_path / "a", alpha=0.3, rounds=2),
        write_run(tmp_path / "b", alpha=0.1, rounds=3, seed=1),
    ]
    page = comparison(tmp_path, runs)
    assert "these runs differ in data.partition.alpha, rounds." in page.text
    assert "fedmd goes from" in page.text
