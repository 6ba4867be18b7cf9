"""Folders of pictures as strangers have them: of unlike sizes, turned, with system files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedkd import config, data
from fedkd.data import Dataset, shared_file
from fedkd.data.looking import look
from fedkd.data.readers.pictures.form import PictureForm
from fedkd.errors import ConfigError, DataError

DRAWS = np.random.default_rng(7)


def picture(path: Path, *, size: tuple[int, int] = (6, 8), grey: bool = False) -> np.ndarray:
    values = DRAWS.integers(0, 256, size if grey else (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return values


def read(path: Path, targets: str = "classes", **keys: object) -> Dataset:
    asked = config.validate(config.Data, {"name": str(path), **keys})
    return data.load(asked, seed=0, targets=targets)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two classes of pictures that have neither one size nor one number of channels."""
    for split in ("Training", "val"):
        for n in range(3):
            picture(tmp_path / split / "cat" / f"{n}.PNG", size=(6 + n, 8))
            picture(tmp_path / split / "dog" / f"{n}.webp", size=(12, 4 + n))
            picture(tmp_path / split / "dog" / f"grey{n}.Jpeg", grey=True)
        for stray in (".DS_Store", "cat/Thumbs.db", "cat/._0.png", "notes.txt"):
            (tmp_path / split / stray).write_bytes(b"\0")
        for folder in ("__MACOSX", ".ipynb_checkpoints", "@eaDir"):
            picture(tmp_path / split / folder / "a.png")
    return tmp_path


def test_size_and_channels_bring_all_to_one_form(mixed: Path) -> None:
    with pytest.raises(DataError, match=r"data\.channels = 3 makes all of them coloured, 1 grey"):
        read(mixed)
    with pytest.raises(DataError, match=r"data\.size = 64 or \[64, 80\] brings all to one"):
        read(mixed, channels=1)
    found = read(mixed, channels=3, size=[5, 4])
    assert found.class_names == ("cat", "dog")
    assert found.train.x.shape == found.test.x.shape == (9, 3, 5, 4)
    assert found.train.y.bincount().tolist() == [3, 6]
    grey = found.train.x[found.train.y == 1][3:]
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])
    assert 0 <= found.train.x.min() <= found.train.x.max() <= 1
    assert read(mixed, channels=1, size=7).shape == (1, 7, 7)


def test_a_picture_that_has_the_size_stays_as_it_is_and_others_are_means(tmp_path: Path) -> None:
    one = picture(tmp_path / "train" / "a" / "one.png", size=(4, 4))
    large = np.kron(DRAWS.integers(0, 256, (4, 4), dtype=np.uint8), np.ones((8, 8), np.uint8))
    Image.fromarray(np.stack([large] * 3, axis=-1)).save(tmp_path / "train" / "a" / "two.png")
    picture(tmp_path / "test" / "a" / "one.png", size=(4, 4))
    x = read(tmp_path, size=4).train.x
    assert torch.equal(x[0], torch.from_numpy(one).permute(2, 0, 1) / 255)
    blocks = torch.from_numpy(large[::8, ::8].copy()) / 255
    # Means over a triangle that reaches into the neighbours; a sample of one pixel would be equal.
    assert 0 < (x[1, 0] - blocks).abs().mean() < 0.12
    luma = (read(tmp_path, size=4, channels=1).train.x[0, 0] * 255).round()
    assert (luma - torch.tensor(np.array(Image.fromarray(one).convert("L")))).abs().max() <= 1


def test_masks_and_boxes_follow_their_picture(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name, side in (("a", 4), ("b", 8)):
            picture(tmp_path / part / "images" / f"{name}.png", size=(side, side))
            mask = np.kron(np.array([[0, 1], [2, 255]], np.uint8), np.ones((side // 2,) * 2))
            (tmp_path / part / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask.astype(np.uint8)).save(tmp_path / part / "masks" / f"{name}.png")
            (tmp_path / part / "boxes").mkdir(exist_ok=True)
            (tmp_path / part / "boxes" / f"{name}.xml").write_text(
                "<annotation><object><name>car</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
                f"<xmax>{side // 2}</xmax><ymax>{side}</ymax></bndbox></object></annotation>"
            )
    masks = read(tmp_path, "masks", size=[4, 6]).train
    expected = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, -100, -100, -100]] * 2)
    assert torch.equal(masks.y, torch.stack([expected, expected]))
    small, large = read(tmp_path, "boxes", size=[4, 8]).train.y[:, 0].tolist()
    # Pascal VOC counts from 1 and names the last pixel.
    assert small == [0, 0, 0, 4, 4]
    assert large == [0, 0, 0, 4, 4]


def test_a_turned_camera_s_picture_is_set_upright_or_refused(tmp_path: Path) -> None:
    upright = picture(tmp_path / "train" / "a" / "upright.png", size=(4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise to be seen
    turned = Image.fromarray(np.rot90(upright).copy())
    turned.save(tmp_path / "train" / "a" / "turned.png", exif=exif)
    picture(tmp_path / "test" / "a" / "x.png", size=(4, 6))
    x = read(tmp_path).train.x
    assert torch.equal(x[0], x[1])
    (tmp_path / "masks" / "images").mkdir(parents=True)
    (tmp_path / "masks" / "masks").mkdir()
    turned.save(tmp_path / "masks" / "images" / "a.png", exif=exif)
    Image.fromarray(np.zeros((6, 4), np.uint8)).save(tmp_path / "masks" / "masks" / "a.png")
    with pytest.raises(DataError, match=r"a\.png is turned by its EXIF, .*store it upright"):
        read(tmp_path / "masks", "masks")


def test_a_camera_s_preview_is_no_second_frame(tmp_path: Path) -> None:
    first = Image.fromarray(np.full((8, 8, 3), 200, np.uint8))
    second = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        first.save(tmp_path / part / "a" / "x.jpg", "MPO", save_all=True, append_images=[second])
    assert read(tmp_path).train.x.shape == (1, 3, 8, 8)
    first.save(
        tmp_path / "train" / "a" / "y.gif", save_all=True, append_images=[second.resize((8, 8))]
    )
    with pytest.raises(DataError, match=r"y\.gif has 2 frames"):
        read(tmp_path)


def test_a_window_cuts_off_what_a_range_refuses(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        values = np.array([[-1000, -160, 40, 240, 3000]], np.int32)
        Image.fromarray(values).save(tmp_path / part / "a" / "x.tif")
    with pytest.raises(DataError, match=r"from -1000 to 3000; .* data\.window = \[low, high\]"):
        read(tmp_path, range=[-160, 240])
    assert read(tmp_path, window=[-160, 240]).train.x.tolist() == [[[[0, 0, 0.5, 1, 1]]]]
    with pytest.raises(ConfigError, match="leave out one"):
        read(tmp_path, window=[-160, 240], range=[-160, 240])
    with pytest.raises(ConfigError, match=r"data\.window is \[1, 0\]: expected the lower"):
        read(tmp_path, window=[1, 0])


def test_folders_may_be_clients_by_name(tmp_path: Path) -> None:
    for client, count in (("east", 8), ("west", 9)):
        for n in range(count):
            picture(tmp_path / client / "data" / "ab"[n % 2] / f"{n}.png")
    split = data.federate(
        config.validate(
            config.Data, {"clients": [str(tmp_path / "*" / "data")], "test_share": 0.4}
        ),
        clients=None,
        seed=1,
    )
    assert len(split.clients) == 2
    assert sum(map(len, split.clients)) + len(split.test) == 17
    with pytest.raises(DataError, match=r"holds no a folder with pictures"):
        data.load(config.Data(clients=(str(tmp_path / "east" / "data"), str(tmp_path))), seed=0)


def test_a_site_s_pictures_are_read_by_the_classes_that_the_parties_agreed_on(
    tmp_path: Path, mixed: Path
) -> None:
    asked = config.validate(config.Data, {"name": str(mixed), "channels": 3, "size": 6})
    shared = shared_file.parse_shared(shared_file.to_bytes(data.shared(asked, seed=0)))
    form = PictureForm(channels=3, size=(6, 6))

    def own() -> torch.Tensor:
        path = tmp_path / "own"
        return shared_file.read_own(path, "npz", label="label", shared=shared, pictures=form).y

    picture(tmp_path / "own" / "dog" / "a.png")
    picture(tmp_path / "own" / "dog" / "b.png", size=(20, 20))
    assert own().tolist() == [1, 1]  # by its name, though it is the only one here
    picture(tmp_path / "own" / "dogs" / "c.png")
    with pytest.raises(
        DataError, match=r"own: has 'dogs', which is no class: did you mean 'dog'\?"
    ):
        own()


@pytest.mark.parametrize("form", ["EPS", "PCX"])
def test_what_is_called_a_picture_is_read_as_one_of_few_formats(tmp_path: Path, form: str) -> None:
    """Pillow goes by what a file holds: PostScript it would hand to a program."""
    for name in ("cat", "dog"):
        picture(tmp_path / name / "a.png")
    Image.new("RGB", (8, 6)).save(tmp_path / "dog" / "b.png", form)
    with pytest.raises(DataError, match=r"b\.png cannot be read as a picture \(cannot identify"):
        read(tmp_path)
    with pytest.raises(DataError, match="cannot identify"):
        look(tmp_path)
