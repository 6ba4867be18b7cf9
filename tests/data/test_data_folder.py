import numpy as np
import pytest
import torch
from PIL import Image

from fedkd import config, data
from fedkd.data.readers.pictures import picture
from fedkd.errors import ConfigError, DataError
from fedkd.tasks.likelihoods.categorical import IGNORED

VIEWS = (("left", 7), ("all", 8))
DRAWS = np.random.default_rng(5)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def grey(height=6, width=8, dtype=np.uint8):
    return DRAWS.integers(0, np.iinfo(dtype).max, (height, width), dtype=dtype)


def masked(root, names, size=(6, 8)):
    """Pictures with masks of three classes, in `root`; the values by name."""
    written = {}
    for name in names:
        image, mask = grey(*size), DRAWS.integers(0, 3, size, dtype=np.uint8)
        save(root / "images" / f"{name}.png", image)
        save(root / "masks" / f"{name}.tif", mask)
        written[name] = image, mask
    return written


def read(path, targets="masks", **keys):
    return data.load(config.Data(name=str(path), **keys), seed=0, targets=targets)


def test_masks_lie_beside_images(tmp_path):
    train, test = masked(tmp_path / "train", "abc"), masked(tmp_path / "test", "de")
    found = read(tmp_path)
    assert (found.train.x.shape, found.test.y.shape) == ((3, 1, 6, 8), (2, 6, 8))
    for row, (image, mask) in enumerate(train.values()):
        assert np.array_equal(found.train.x[row, 0], image.astype(np.float32) / np.float32(255))
        assert np.array_equal(found.train.y[row], mask)
    assert np.array_equal(found.test.y[1], test["e"][1])
    assert (found.classes, found.class_names, found.groups) == (3, ("0", "1", "2"), None)


def test_a_void_pixel_does_not_count(tmp_path):
    masked(tmp_path / "test", "a")
    masked(tmp_path / "train", "bc")
    mask = np.full((6, 8), 1, np.uint8)
    mask[2, 3] = 255
    save(tmp_path / "train/masks/b.tif", mask)
    y = read(tmp_path).train.y
    assert y[0, 2, 3] == IGNORED
    assert (y[0] == 1).sum() == 47


@pytest.mark.parametrize("targets", ["masks", "classes"])
def test_clients_are_folders(tmp_path, targets):
    for site, count in (("ward", 3), ("clinic", 2)):
        for n in range(count):
            for kind in ("cat", "dog"):
                if targets == "classes":
                    save(tmp_path / "train" / site / kind / f"{n}.png", grey())
                else:
                    masked(tmp_path / "train" / site, [f"{kind}{n}"])
    if targets == "classes":
        save(tmp_path / "test/cat/x.png", grey())
    else:
        masked(tmp_path / "test", "x")
    choice = config.Data(name=str(tmp_path), partition={"scheme": "natural"})
    found = read(tmp_path, targets)
    assert found.groups.tolist() == [0] * 4 + [1] * 6  # clinic before ward
    if targets == "classes":
        assert found.class_names == ("cat", "dog")
        clients = data.federate(choice, clients=None, seed=0).clients
        assert [len(each) for each in clients] == [4, 6]


def test_a_picture_is_held_out_by_itself(tmp_path):
    masked(tmp_path, [f"p{n}" for n in range(12)])
    before = {x.numpy().tobytes() for x in read(tmp_path, test_share=0.4).test.x}
    masked(tmp_path, ["another"])
    after = {x.numpy().tobytes() for x in read(tmp_path, test_share=0.4).test.x}
    assert before <= after
    assert 0 < len(before) < 12


def test_squares_have_each_pixel_once(tmp_path):
    masked(tmp_path / "train", "a", (10, 7))
    masked(tmp_path / "train", "b", (4, 9))
    written = masked(tmp_path / "test", "c", (11, 6))
    found = read(tmp_path, tile=4)
    assert found.train.x.shape[1:] == (1, 4, 4)
    assert len(found.train) == 3 * 2 + 1 * 3
    assert len(found.test) == 3 * 2
    _, mask = written["c"]
    told = found.test.y[found.test.y != IGNORED]
    assert (
        torch.bincount(told, minlength=3).tolist()
        == np.bincount(mask.ravel(), minlength=3).tolist()
    )


def test_a_square_that_reaches_beyond_a_small_picture_is_empty_there():
    (window,) = picture.windows(2, 3, 4)
    part = window.of(np.ones((2, 3)), beyond=-1)
    assert part.sum() == 6 - 10


@pytest.mark.parametrize(
    ("values", "range", "expected"),
    [
        (np.array([[0, 65535]], np.uint16), None, [[0.0, 1.0]]),
        (np.array([[0, 4095]], np.uint16), (0, 4095), [[0.0, 1.0]]),
        (np.array([[0.25, 0.5]], np.float32), None, [[0.25, 0.5]]),
    ],
)
def test_values_become_0_to_1(values, range, expected):
    assert picture.as_inputs("a.tif", values, range)[..., 0].tolist() == expected


def test_a_proxy_set_needs_no_masks(tmp_path):
    masked(tmp_path / "own/train", "abc")
    masked(tmp_path / "own/test", "d")
    for n in range(3):
        save(tmp_path / "proxy" / f"{n}.png", grey())
    source = config.Data(
        name=str(tmp_path / "own"), public={"source": str(tmp_path / "proxy"), "size": 2}
    )
    found = data.shared(source, seed=0, targets="masks")
    assert (len(found.public), len(found.test), found.classes) == (2, 1, 3)


def two(size):
    def spoil(root):
        save(root / "train/images/a.png", grey(*size))

    return spoil


def instances(root):
    save(root / "train/masks/a.tif", np.full((6, 8), 300, np.uint16))


def coloured(root):
    save(root / "train/masks/a.tif", np.zeros((6, 8, 3), np.uint8))


def void(root):
    for mask in "ab":
        save(root / f"train/masks/{mask}.tif", np.full((6, 8), 255, np.uint8))


def unlearned(root):
    save(root / "test/masks/c.tif", np.full((6, 8), 3, np.uint8))


def frames(root):
    pages = [Image.fromarray(grey()) for _ in range(3)]
    pages[0].save(root / "train/images/a.tif", save_all=True, append_images=pages[1:])
    (root / "train/images/a.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (two((6, 9)), "the mask of a.png is 6x8 pixels; expected 6x9, as the image"),
        (instances, "masks is 300 at index .0, 0, 0.; expected 0..254, or -100 .* numbers of cl"),
        (coloured, "masks/a.tif holds uint8 of shape .6, 8, 3.; expected one channel"),
        (void, "has 0, 1, 2 in test/ alone"),
        (unlearned, "has 3 in test/ alone; expected classes .* drop them"),
        (frames, "a.tif has 3 frames; expected one"),
        (lambda root: (root / "train/masks/b.tif").unlink(), "images/b.png has 0 masks in train/"),
        (lambda root: (root / "train/images/b.png").write_bytes(b"no"), "b.png cannot be read as"),
        (lambda root: masked(root / "train", "c", (4, 4)), "4x4x1 and of 6x8x1 .*data.tile = 64"),
        (lambda root: (root / "train/images").rename(root / "train/x"), "neither images/ and mas"),
    ],
)
def test_refused_in_one_line(tmp_path, spoil, expected):
    masked(tmp_path / "train", "ab")
    masked(tmp_path / "test", "c")
    spoil(tmp_path)
    with pytest.raises(DataError, match=expected) as refused:
        read(tmp_path)
    assert "\n" not in str(refused.value)


def test_masks_of_which_no_pixel_counts_are_refused(tmp_path):
    masked(tmp_path / "train", "ab")
    masked(tmp_path / "test", "c")
    void(tmp_path)
    save(tmp_path / "test/masks/c.tif", np.full((6, 8), 255, np.uint8))
    with pytest.raises(DataError, match="masks has no pixel that counts"):
        read(tmp_path)


def test_a_picture_that_is_too_large_is_refused(tmp_path, monkeypatch):
    masked(tmp_path / "train", "ab")
    masked(tmp_path / "test", "c")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match=r"is too large .*cut it into several"):
        read(tmp_path)


def test_arrays_of_masks_are_as_large_as_their_images(tmp_path):
    x, y = np.zeros((2, 6, 8), np.uint8), np.zeros((2, 6, 7), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=x, x_test=x, y_train=y, y_test=y)
    with pytest.raises(DataError, match="y_train has masks of 6x7 pixels, and an input has shape"):
        read(tmp_path / "a.npz")
    views = {f"x_{part}.{view}": x[:, :, :w] for part in ("train", "test") for view, w in VIEWS}
    np.savez(tmp_path / "b.npz", **views, y_train=y, y_test=y)
    with pytest.raises(DataError, match="y_train has masks of 6x7 pixels, and an input has shape"):
        read(tmp_path / "b.npz")


def test_a_key_of_other_data_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data.tile is 4, .*it is for folders of pictures"):
        read(tmp_path / "a.csv", tile=4)
    masked(tmp_path / "train", "a")
    with pytest.raises(ConfigError, match=r"data.layout is 'as-stored'"):
        read(tmp_path, layout="as-stored")
    with pytest.raises(DataError, match=r"tells? of classes, .*masks, .*asks for numbers"):
        read(tmp_path, "numbers")
