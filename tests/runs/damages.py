"""What a disk, a careless copy or a thief of files does to one file of a run folder.

Each is called with the run folder, the file's name in it, and folders of another run and of an
earlier moment of the same one.
"""

from functools import partial


def flip(at, run, name, _other, _older):
    content = bytearray((run / name).read_bytes())
    content[int(at * (len(content) - 1))] ^= 0x10
    (run / name).write_bytes(content)


def cut(keep, run, name, _other, _older):
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: int(keep * len(content))])


def shorten(run, name, _other, _older):
    (run / name).write_bytes((run / name).read_bytes()[:-20])


def delete(run, name, _other, _older):
    (run / name).unlink()


def junk(run, name, _other, _older):
    (run / name).write_bytes(b"\x00\xffjunk" * 20)


def swap(run, name, _other, _older):
    mine, theirs = run / name, run / name.replace("client-0000", "client-0001")
    content = mine.read_bytes()
    mine.write_bytes(theirs.read_bytes())
    theirs.write_bytes(content)


def put_back(run, name, _other, older):
    """The file of round 1; where each round has its own, the state of round 1 under its name."""
    before = name.replace("000003", "000001").replace("000002", "000001")
    (run / name).write_bytes((older / before).read_bytes())


def replace(run, name, other, _older):
    (run / name).write_bytes((other / name).read_bytes())


DAMAGES = {
    "first bit": partial(flip, 0),
    "early bit": partial(flip, 0.2),
    "middle bit": partial(flip, 0.5),
    "late bit": partial(flip, 0.8),
    "last bit": partial(flip, 1),
    "half": partial(cut, 0.5),
    "20 bytes fewer": shorten,
    "empty": partial(cut, 0),
    "deleted": delete,
    "junk": junk,
    "another client's": swap,
    "an older one": put_back,
    "another run's": replace,
}
