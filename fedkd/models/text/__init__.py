"""Built-in models of texts: token numbers (N, L), of which the padding does not count."""

from fedkd.models.text import bag, bilstm, encoder
from fedkd.models.text.base import TextModel

BUILT_IN: dict[str, TextModel] = {
    "bag": bag.MODEL,
    "bilstm": bilstm.MODEL,
    "encoder": encoder.MODEL,
}
"""By name: options, how it is built, and of what targets it answers."""
