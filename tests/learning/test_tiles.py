"""A large image by tiles is what it is as a whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedkd.learning import evaluate, tiles


class Near(nn.Module):
    """Logits of two classes that look two pixels far."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.layers = nn.Sequential(
                nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1)
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).movedim(1, -1)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    height=st.integers(9, 31), width=st.integers(9, 31), overlap=st.sampled_from([4, 5, 8]),
)  # fmt: skip
def test_tiles_give_the_answer_of_the_whole(height: int, width: int, overlap: int) -> None:
    image = torch.rand(1, height, width, generator=torch.Generator().manual_seed(height * width))
    whole = evaluate.answers(Near(), image[None])[0]
    found = tiles.answer(Near(), image, side=9, overlap=overlap)
    torch.testing.assert_close(found, whole)


def test_without_overlap_edges_see_less() -> None:
    image = torch.rand(1, 18, 18, generator=torch.Generator().manual_seed(1))
    whole = evaluate.answers(Near(), image[None])[0]
    found = tiles.answer(Near(), image, side=9, overlap=0)
    assert found.shape == whole.shape
    assert not torch.allclose(found[:, 8:10], whole[:, 8:10])
    torch.testing.assert_close(found[:6, :6], whole[:6, :6])


@pytest.mark.parametrize(("side", "overlap"), [(9, 9), (9, -1), (40, 4)])
def test_impossible_tiles_are_refused(side: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="expected an overlap below the side"):
        tiles.answer(Near(), torch.rand(1, 20, 20), side=side, overlap=overlap)
