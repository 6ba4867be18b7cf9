"""Where what is in images comes to stand when they are cut and mirrored, for targets to follow."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Motion:
    """How each image of a batch was cut, and mirrored after that.

    Attributes:
        down: int64 (N,), the row of an image that has become its first; below 0 it is outside.
        right: int64 (N,), the column that has become its first.
        mirrored: bool (N,), left to right.
        size: height and width afterwards.
    """

    down: Tensor
    right: Tensor
    mirrored: Tensor
    size: tuple[int, int]

    def of_pixels(self, pixels: Tensor, *, beyond: float) -> Tensor:
        """What stands at each place (N, H, W, ...) moved; what was outside is `beyond`."""
        n, height, width = pixels.shape[:3]
        rows = self.down[:, None] + torch.arange(self.size[0])
        across = torch.arange(self.size[1]).expand(n, -1)
        columns = self.right[:, None] + torch.where(self.mirrored[:, None], across.flip(1), across)
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
            :, None, :
        ]
        images = torch.arange(n)[:, None, None]
        moved = pixels[
            images,
            rows.clamp(0, height - 1)[:, :, None],
            columns.clamp(0, width - 1)[:, None, :],
        ]
        shape = (*inside.shape, *[1] * (pixels.dim() - 3))
        return torch.where(inside.reshape(shape), moved, beyond)

    def of_images(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) moved; what was outside is 0."""
        return self.of_pixels(images.movedim(1, -1), beyond=0.0).movedim(-1, 1).contiguous()

    def of_places(self, places: Tensor) -> Tensor:
        """Places (N, K, 2), x and y in pixels from the left and upper edge, moved.

        They may lie outside afterwards.
        """
        x = places[..., 0] - self.right[:, None]
        x = torch.where(self.mirrored[:, None], self.size[1] - x, x)
        return torch.stack([x, places[..., 1] - self.down[:, None]], dim=-1)
