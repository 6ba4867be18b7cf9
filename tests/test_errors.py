import re

from fedkd import errors

LINE = re.compile(r"^(?P<tree>[ │├└─]*)(?P<name>[A-Z]\w*Error)(?: +exit (?P<status>\d))?", re.M)


def drawn() -> dict[str, tuple[str, int]]:
    """The docstring's tree: each class's parent and the exit status that it has or inherits."""
    tree: dict[str, tuple[str, int]] = {}
    above: list[tuple[int, str]] = []
    for line in LINE.finditer(errors.__doc__ or ""):
        depth, name = len(line["tree"]), line["name"]
        above = [(d, n) for d, n in above if d < depth]
        parent = above[-1][1] if above else "Exception"
        status = int(line["status"]) if line["status"] else tree[parent][1]
        tree[name] = (parent, status)
        above.append((depth, name))
    return tree


def test_the_docstring_draws_the_hierarchy_and_its_exit_statuses() -> None:
    real = {
        name: (value.__base__.__name__, value.exit_status)
        for name, value in vars(errors).items()
        if isinstance(value, type)
    }
    assert drawn() == real
    assert len(real) == 15
