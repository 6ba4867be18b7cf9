import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import nn

from fedkd.data.types import Samples
from fedkd.errors import RunFolderError
from fedkd.reports.charts import examples as charts
from fedkd.runs import examples
from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score, Task
from fedkd.tasks.likelihoods.categorical import CATEGORICAL, IGNORED

NONE = Score("none", lambda a, t: a, lambda c, t: {}, TensorSpec((1,)))
TASK = Task(
    name="pixels",
    inputs=(1, 4, 5),
    answer=(4, 5, 3),
    targets="masks",
    names=("sky", "field", "road"),
    likelihood=CATEGORICAL,
    scores=(NONE,),
    offers=frozenset({"image", "categorical"}),
)


class Road(nn.Module):
    """Says `road` where the image is bright, `sky` elsewhere."""

    def forward(self, x):
        zero = torch.zeros_like(x)
        return torch.stack([zero, zero - 1, x - 0.5], dim=-1)[:, 0]


def kept(folder, count=9):
    x = torch.rand(count, 1, 4, 5, generator=torch.Generator().manual_seed(2))
    y = torch.ones(count, 4, 5, dtype=torch.int64)
    y[:, 0, 0] = IGNORED
    examples.write(folder, TASK, Samples(x, y), {"Teacher": Road(), "Student": Road()})
    return x


def test_a_run_keeps_a_few_records_with_decided_answers(tmp_path):
    x = kept(tmp_path)
    shown = examples.read(tmp_path)
    assert (shown.kind, shown.classes, list(shown.answers)) == (
        "masks", ("sky", "field", "road"), ["Teacher", "Student"],
    )  # fmt: skip
    assert np.array_equal(shown.x, x[[0, 2, 4, 6]])
    assert np.array_equal(shown.answers["Student"] == 2, shown.x[:, 0] > 0.5)


def pixels(address):
    return imread(io.BytesIO(base64.b64decode(address.partition(",")[2])))[..., :3]


def test_columns_are_image_truth_and_answers(tmp_path):
    kept(tmp_path)
    drawn = charts.examples(shown := examples.read(tmp_path))
    assert drawn.heads == ("Image", "Truth", "Teacher", "Student")
    assert len(drawn.rows) == 4
    image, truth, _, student = map(pixels, drawn.rows[1])
    assert np.allclose(image[..., 0], shown.x[1, 0], atol=1 / 255)
    assert np.allclose(truth[0, 0], 0.6, atol=1 / 255)
    assert np.allclose(truth[0, 1], charts.rgb(1), atol=1 / 255)
    road = shown.answers["Student"][1] == 2
    assert np.allclose(student[road], charts.rgb(2), atol=1 / 255)
    assert [name for name, _ in drawn.legend] == ["sky", "field", "road", "does not count"]


def test_every_kind_of_targets_that_is_kept_is_painted():
    assert set(charts.PAINTERS) <= set(examples.SHOWN)


def test_other_tasks_keep_nothing(tmp_path):
    x, y = torch.zeros(2, 1, 4, 5), torch.zeros(2, dtype=torch.int64)
    examples.write(tmp_path, replace(TASK, targets="classes"), Samples(x, y), {"Student": Road()})
    assert examples.read(tmp_path) is None


def test_a_damaged_file_is_refused(tmp_path):
    kept(tmp_path)
    (tmp_path / examples.FILE).write_bytes(b"no tensors")
    with pytest.raises(RunFolderError, match=r"examples.safetensors' is corrupt"):
        examples.read(tmp_path)


def test_a_box_has_a_frame_in_the_colour_of_the_legend():
    x = np.zeros((1, 3, 8, 8), np.float32)
    truth = np.array([[[1, 2.0, 1.0, 6.0, 5.0], [-1, 0, 0, 0, 0]]], np.float32)
    nothing = np.full_like(truth, -1)
    shown = examples.Shown("boxes", x, truth, {"Student": nothing}, ("cat", "dog"))
    painted = charts.boxes(np.zeros((8, 8, 3)), truth[0])
    scale = painted.shape[0] // 8
    framed = (painted != 0).any(axis=2)
    rows, columns = np.nonzero(framed)
    assert (rows.min(), rows.max() + 1) == (1 * scale, 5 * scale)
    assert (columns.min(), columns.max() + 1) == (2 * scale, 6 * scale)
    assert not framed[2 * scale : 4 * scale, 3 * scale : 5 * scale].any()
    ((name, colour),) = charts.examples(shown).legend
    found = [round(255 * value) for value in painted[rows[0], columns[0]]]
    assert (name, found) == ("dog", [int(colour[at : at + 2], 16) for at in (1, 3, 5)])
    assert not charts.boxes(np.zeros((8, 8, 3)), nothing[0]).any()


def test_points_are_painted_where_they_are_unless_they_are_hidden():
    image = np.ones((6, 9, 3))
    painted = charts.points(image, np.array([[8.5, 1.5, 1], [2, 2, 0]], dtype=np.float32))
    scale = len(painted) // 6
    assert painted.shape == (6 * scale, 9 * scale, 3)
    assert np.array_equal(painted[int(1.5 * scale), int(8.5 * scale)], charts.rgb(1))
    assert painted[:, : 8 * scale].min() == 1
    assert image.min() == 1  # its owner's
