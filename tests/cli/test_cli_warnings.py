"""What the library warns of is a line on the standard error, whichever room says it."""

import json

import tiny

LINE = "column 'age' spans 4,000: say data.scale = 'standard'"
METHOD = f"""
import logging
from fedkd.methods.fedmd import FedMD

class Warning(FedMD):
    def check(self, setting):
        logging.getLogger("fedkd.data.anything").warning({LINE!r})
        logging.getLogger("fedkd.data.anything").info("not a word of this")
"""


def test_a_warning_of_the_library_is_one_line_on_the_standard_error(run, rows, here, monkeypatch):
    (here / "warns.py").write_text(METHOD)
    monkeypatch.syspath_prepend(str(here))
    changes = {"method.name": "warns:Warning", "rounds": 1, "privacy.epsilon": 8.0}
    config = tiny.write_config(here / "tiny.toml", rows, changes)
    # Twice in one process, so that no handler of the first command speaks in the second.
    for _ in range(2):
        status, out, complaint = run("audit", "plan", config, "--json")
        assert (status, complaint) == (0, f"warning: {LINE}\n")
        assert json.loads(out)["unit"] == "record"
