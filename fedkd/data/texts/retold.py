"""What a model wrote, in the tokens of another: texts are what they have in common."""

import torch
from torch import Tensor

from fedkd.data.texts.forms import shifted
from fedkd.data.types import Dataset, Samples
from fedkd.rows import whole
from fedkd.tasks.likelihoods.categorical import IGNORED


def retold(rows: Tensor, shown: Tensor, theirs: Dataset, ours: Dataset) -> Samples:
    """Records of what was written, as if their texts had been in the table.

    A text that its writer did not end, or that is longer in the reader's tokens than it takes, has
    no end that counts.

    Args:
        rows: what was written, int64 (N, K), in tokens of one tokeniser.
        shown: of a language model the beginnings that it was shown, int64 (N, J), whose tokens are
            no targets.
        theirs: whose tokens these are.
        ours: who reads it; `train.x` are N records, whose texts are read where another is written.

    Returns:
        Inputs int64 (N, *inputs) and targets int64 (N, *targets), `IGNORED` where none counts.
    """
    [writer], [reader] = theirs.tokenizers.values(), ours.tokenizers.values()
    marks, reads = reader.vocabulary, ours.targets == "tokens"
    # Of an ended text alone: one mark may begin and end it.
    ended = (rows[:, 0 if reads else 1 :] == writer.vocabulary.end).any(dim=1)
    found = reader.encode(writer.decode(rows), length=ours.length)
    before, y = shifted([each.ids for each in found], ours.length - 1, marks.padding)
    for row, encoding in enumerate(found):
        whole_text = bool(ended[row]) and not encoding.overflowing
        if not whole_text and encoding.ids[-1:] == [marks.end]:
            y[row, len(encoding.ids) - 2] = IGNORED
    if reads:
        source = whole(ours.train.x)[:, : ours.length]
        return Samples(torch.cat([source, before], dim=1), y)
    for row, (encoding, begun) in enumerate(zip(found, writer.decode(shown), strict=True)):
        for place, (left, right) in enumerate(encoding.offsets[1:]):
            if left < right <= len(begun):
                y[row, place] = IGNORED
    return Samples(before, y)
