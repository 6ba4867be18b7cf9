"""Models by name, in words: what each takes, its options, where it comes from."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedkd.models.factory import options


@dataclass(frozen=True)
class KnownModel:
    """A model, or a family of them.

    Attributes:
        about: what it is.
        takes: what a record must be.
        source: a paper, or a library.
        options: those beside its name, by name, with their defaults; a library's are its own.
        needs: what to install beside fedkd; empty if nothing.
        installed: whether that is installed.
    """

    about: str
    takes: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: str = ""
    installed: bool = True


_IMAGES, _TEXTS = "images", "texts with one answer, such as a class"
_TOKENS = "texts: with one answer, an answer a token, or a span"
_OWN = {
    "mlp": ("A multi-layer perceptron with ReLU", "rows of features, or images", "fedkd"),
    "lenet5": (
        "LeNet-5 with ReLU and max pooling",
        "images of 12 pixels a side and more",
        "LeCun et al. 1998",
    ),
    "dense-cnn": (
        "Two convolutions, the CNN of the one-shot benchmark",
        "images of 4 pixels a side and more",
        "Zhang et al. 2022, arXiv:2112.12371",
    ),
    "resnet8": (
        "Three stages of one residual block",
        "images of 4 pixels a side and more",
        "He et al. 2015, arXiv:1512.03385",
    ),
    "scattering": (
        "Fixed wavelet features and a linear layer",
        "images of 8 pixels a side and more",
        "Bruna & Mallat 2013, arXiv:1203.1513",
    ),
    "random-filters": (
        "Fixed random filters and a linear layer",
        "images of 5 pixels a side and more",
        "compare Jarrett et al. 2009",
    ),
    "contrast-filters": (
        "Random filters on normalised contrast, a basis of drawn shapes, and a linear layer",
        "images of 9 pixels a side and more",
        "compare Jarrett et al. 2009, and PCANet, arXiv:1404.3606",
    ),
    "hourglass": (
        "A stacked hourglass: a heatmap for each joint",
        "images, of task keypoints",
        "Newell et al. 2016, arXiv:1603.06937",
    ),
    "unet": (
        "A U-Net: a class for each pixel",
        "images, of task segmentation",
        "Ronneberger et al. 2015, arXiv:1505.04597",
    ),
    "centre-point": (
        "A centre-point detector: boxes on a grid",
        "images, of task detection",
        "Zhou et al. 2019, arXiv:1904.07850",
    ),
    "mult-dae": (
        "A denoising autoencoder of histories",
        "items that were taken, of task recommendation",
        "Liang et al. 2018, arXiv:1802.05814",
    ),
    "two-tower": (
        "A user's vector times each item's",
        "items that were taken, of task recommendation",
        "Koren 2008, KDD",
    ),
    "bag": ("The mean of word pieces' vectors", _TEXTS, "Joulin et al. 2016, arXiv:1607.01759"),
    "bilstm": (
        "Two LSTMs over a text, one from each end",
        _TOKENS,
        "Tang et al. 2019, arXiv:1903.12136",
    ),
    "encoder": (
        "A small transformer that reads a text from both ends",
        _TOKENS,
        "Devlin et al. 2019, arXiv:1810.04805",
    ),
    "causal-transformer": (
        "A small transformer that writes, as GPT does",
        "texts, of task language-model",
        "Radford et al. 2019",
    ),
    "gru-seq2seq": (
        "A recurrent network that reads one text and writes another",
        "pairs of texts, of task sequence-to-sequence",
        "Bahdanau et al. 2015, arXiv:1409.0473",
    ),
    "transformer-seq2seq": (
        "A transformer that reads one text and writes another",
        "pairs of texts, of task sequence-to-sequence",
        "Vaswani et al. 2017, arXiv:1706.03762",
    ),
    "fusion": (
        "An encoder for each view of a record, their features side by side",
        "two views or more",
        "fedkd",
    ),
}
_FAMILIES = {
    "torchvision/NAME": (
        "Any classifier of torchvision; of masks deeplabv3_*, fcn_* and lraspp_*",
        _IMAGES,
        "torchvision",
        "vision",
    ),
    "timm/NAME": ("Any model of PyTorch Image Models", _IMAGES, "timm", "vision"),
    "hf/FOLDER": (
        "A local Hugging Face folder, as save_pretrained writes it",
        "images or texts, as its config.json says",
        "transformers",
        "text",
    ),
}


def known() -> dict[str, KnownModel]:
    """All models by name: fedkd's own, then families of other libraries."""
    found = {}
    for name, (about, takes, source) in _OWN.items():
        given = options(name)()
        values = {key: getattr(given, key) for key in type(given).model_fields}
        found[name] = KnownModel(about, takes, source, values)
    for name, (about, takes, library, extra) in _FAMILIES.items():
        here = importlib.util.find_spec(library) is not None
        found[name] = KnownModel(
            about, takes, library, needs=f"pip install 'fedkd[{extra}]'", installed=here
        )
    return found
