import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd import models
from fedkd.config import ModelSpec


def built(seed: int = 0, shape: tuple[int, ...] = (2, 9, 12)) -> nn.Module:
    spec = ModelSpec.model_validate({"name": "random-filters", "filters": 6, "pool": 3})
    return models.build(spec, shape=shape, classes=4, generator=torch.Generator().manual_seed(seed))


def by_hand(model: nn.Module, image: Tensor) -> Tensor:
    """The features of one image, pixel by pixel."""
    filters = model.get_buffer("features.filters")
    padded, (_, height, width) = F.pad(image, (2, 2, 2, 2)), image.shape
    maps = torch.zeros(len(filters), height, width)
    for k, row, column in torch.cartesian_prod(*map(torch.arange, maps.shape)).tolist():
        window = padded[:, row : row + 5, column : column + 5]
        maps[k, row, column] = max(0.0, float((filters[k] * window).sum()))
    cells = maps.view(len(filters), 3, height // 3, 3, width // 3).mean(dim=(2, 4))
    roots = (cells.flatten() + 1e-6).sqrt()
    return roots / roots.norm()


def test_features_are_their_definition() -> None:
    model, x = built(), torch.rand(2, 2, 9, 12, generator=torch.Generator().manual_seed(1))
    found = model.get_submodule("features")(x)
    torch.testing.assert_close(found, torch.stack([by_hand(model, image) for image in x]))


def test_filters_have_mean_0_and_norm_1_and_follow_the_stream() -> None:
    filters = built().get_buffer("features.filters")
    torch.testing.assert_close(filters.mean(dim=(1, 2, 3)), torch.zeros(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(filters.flatten(1).norm(dim=1), torch.ones(6))
    assert torch.equal(filters, built().get_buffer("features.filters"))
    assert not torch.equal(filters, built(1).get_buffer("features.filters"))


def test_a_saved_model_has_its_filters_and_only_the_linear_layer_is_learnt() -> None:
    model, other = built(), built(1)
    learnt = [name for name, _ in model.named_parameters()]
    assert learnt == ["classifier.weight", "classifier.bias"]
    other.load_state_dict(model.state_dict())
    x = torch.rand(3, 2, 9, 12)
    assert torch.equal(model(x), other(x))


def test_contrast_changes_nothing_and_a_black_image_has_features() -> None:
    front, x = built().get_submodule("features"), torch.rand(1, 2, 9, 12) + 0.5
    torch.testing.assert_close(front(3 * x), front(x), rtol=0, atol=1e-3)
    assert math.isclose(float(front(torch.zeros(1, 2, 9, 12)).norm()), 1.0, rel_tol=1e-5)
