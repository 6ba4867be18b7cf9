"""Built-in models of texts: token numbers (N, L), of which the padding does not count."""

from fedkd.models.text import bag, bilstm, causal, encoder, seq2seq
from fedkd.models.text.base import TextModel

BUILT_IN: dict[str, TextModel] = {
    "bag": bag.MODEL,
    "bilstm": bilstm.MODEL,
    "encoder": encoder.MODEL,
    "causal-transformer": causal.MODEL,
    "gru-seq2seq": seq2seq.GRU,
    "transformer-seq2seq": seq2seq.TRANSFORMER,
}
"""By name: options, how it is built, and of what targets it answers."""
