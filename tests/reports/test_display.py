import re
import sys
from io import StringIO

import pytest
from rich.console import Console

from fedkd.reports.display import Display, fitted, round_in_parts, round_in_words

RECORD = {
    "round": 2,
    "student": {"accuracy": 0.8125, "by_class": [0.8]},
    "teachers": {
        "mean_accuracy": 0.5,
        "by_client": {
            "0": {"model": "mlp", "accuracy": 0.25},
            "3": {"model": "m", "accuracy": 0.75},
        },
    },
    "ensemble": {"accuracy": 0.625},
    "losses": {},
    "bytes": {"up": 1, "down": 1},
    "seconds": {"total": 12.34},
    "participants": [0, 3],
    "failures": [
        {"client": 1, "reason": "field 'logits': shape is not (40, 3)"},
        {"client": 2, "reason": "no answer within 4 s [bold]"},
    ],
    "capped": [{"client": 3, "claimed": 0.99994, "weighed": 0.75}],
}


def test_a_round_in_words():
    assert round_in_words(RECORD) == (
        "round   2  student 81.2%  teachers 50.0% (best 75.0%)  ensemble 62.5%  12.3 s  "
        "client 1 left out: field 'logits': shape is not (40, 3)  "
        "client 2 left out: no answer within 4 s [bold]  "
        "client 3 claimed 100.0% of the weight and has 75.0%, more than all others together: "
        "set clients.max_weight to 0.5 or less"
    )
    bare = RECORD | {"teachers": None, "ensemble": None, "failures": [], "capped": []}
    assert round_in_words(bare) == "round   2  student 81.2%  12.3 s"


def play(display):
    """Two rounds; client 1 trains, client 2 fails, the server distils."""
    for round in (1, 2):
        display.round_begins(round, [0, 1, 2, 3])
        display.client_does(1, "train", 3, 5)
        display.client_does(0, "evaluate", 0, 1)
        display.client_ends(0, None)
        display.client_does(2, "train", 0, 5)
        display.client_ends(2, "ValueError while training")
        yield
        display.client_ends(1, None)
        display.client_ends(3, None)
        display.server_does("distil", 7, 20)
        yield
        display.round_ends(RECORD | {"round": round})
        yield


def test_where_there_is_no_terminal_each_round_is_one_plain_line():
    file = StringIO()
    with Display(Console(file=file, width=60), title="tiny", rounds=2) as display:
        for _ in play(display):
            pass
    lines = file.getvalue().splitlines()
    rounds = [round_in_words(RECORD | {"round": round}) for round in (1, 2)]
    assert lines == ["tiny, two rounds", *rounds]


@pytest.mark.parametrize("width", [40, 60, 100])
def test_on_a_terminal_no_part_of_a_round_is_broken_that_fits_a_line(width):
    parts = round_in_parts(RECORD)
    lines = fitted(parts, width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert all(line.startswith(" " * 11) for line in lines[1:])
    whole = [part for part in parts if len(part) <= width - 11]
    assert [part for part in whole if not any(part in line for line in lines)] == []
    assert " ".join(" ".join(lines).split()) == " ".join("  ".join(parts).split())


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_shows_the_figures_and_shortens_the_title(width):
    console = Console(file=StringIO(), force_terminal=True, width=width, color_system=None)
    display = Display(console, title="heart_hospitals: fedpair_moments, seed 0", rounds=12)
    with console.capture() as capture:
        console.print(display)
    bar, doing = capture.get().splitlines()
    assert re.match(r"heart_.*… +0/12 rounds \d", bar)
    assert doing.strip() == "preparing data, models and clients"


def test_a_quiet_console_is_shown_nothing_and_what_is_printed_beside_it_stays(capsys):
    console = Console(file=StringIO(), force_terminal=True, quiet=True)
    with Display(console, title="tiny", rounds=2) as display:
        for _ in play(display):
            pass
        sys.stdout.write("warning: of the library\n")  # a live display would have taken it
    assert console.file.getvalue() == ""
    assert capsys.readouterr().out == "warning: of the library\n"


def shown(display):
    """What a terminal shows at this moment."""
    console = Console(file=StringIO(), force_terminal=True, width=100, color_system=None)
    with console.capture() as capture:
        console.print(display)
    return capture.get()


def test_a_terminal_shows_clients_phases_and_failures():
    file = StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    with Display(console, title="tiny", rounds=2) as display:
        moments = [shown(display) for _ in play(display)]
    working, serving, over = moments[:3]
    assert re.search(r"tiny .* 0/2 rounds", working)
    assert re.search(r"client 1 +train 3/5", working)
    assert "client 0" not in working
    assert re.search(r"client 2 +ValueError while training", working)
    assert "1 waiting" in working
    assert re.search(r"server +distil 7/20", serving)
    assert "waiting" not in serving
    assert re.search(r"1/2 rounds", over)
    assert "server" not in over
    assert "client 2" not in shown_after_begin(display)
    assert "round   1" in file.getvalue()


def shown_after_begin(display):
    display.round_begins(3, [0])
    return shown(display)


def test_a_terminal_tells_the_servers_round_from_that_of_clients_ahead_of_it():
    display = Display(Console(file=StringIO()), title="tiny", rounds=5)
    display.round_begins(3, [0, 1])  # resumed
    display.server_does("distil", 1, 20)
    assert "round 3" not in shown(display)
    display.round_begins(4, [0, 1])
    display.client_does(1, "train", 3, 5)
    both = shown(display)
    assert re.search(r"2/5 rounds", both)
    assert re.search(r"client 1 +train 3/5", both)
    assert "1 waiting" in both
    assert re.search(r"server, round 3 +distil 1/20", both)
    display.round_ends(RECORD | {"round": 3})
    assert re.search(r"3/5 rounds", shown(display))


@pytest.mark.parametrize(("clients", "more"), [(16, None), (40, "and 24 more")])
def test_a_terminal_lists_no_more_clients_than_fit(clients, more):
    display = Display(Console(file=StringIO()), title="tiny", rounds=1)
    display.round_begins(1, list(range(clients)))
    for client in range(clients):
        display.client_does(client, "train", 1, 2)
    lines = shown(display).splitlines()
    assert sum("train 1/2" in line for line in lines) == 16
    assert any(more in line for line in lines) if more else "more" not in "".join(lines)
