"""Write goldens.json anew: `python tests/goldens/record.py`, from anywhere.

Do it only in a change that is meant to change results, which its entry in CHANGELOG.md says, or
that adds cases; never to make a test pass. With another torch or numpy the probe differs and the
test skips: then record what the commit before gives, before anything else changes.
"""

import json
import sys

from golden_run import GOLDENS, measure


def main() -> int:
    """Measure and write; the cases that changed are named."""
    before = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else {"cases": {}}
    measured = measure()
    if broken := {name: each for name, each in measured["cases"].items() if "error" in each}:
        sys.stderr.write(
            f"Nothing was written; these did not run: {json.dumps(broken, indent=2)}\n"
        )
        return 1
    GOLDENS.write_text(json.dumps(measured, indent=2, sort_keys=True) + "\n")
    changed = [n for n, each in measured["cases"].items() if before["cases"].get(n) != each]
    sys.stdout.write(f"{len(measured['cases'])} cases, changed or new: {changed or 'none'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
