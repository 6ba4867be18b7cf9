"""The tokeniser of a run's student, kept beside it: without it nobody could ask it anything."""

from collections.abc import Mapping
from pathlib import Path

from fedkd.data.texts.tokenizer import Tokenizer
from fedkd.errors import RunFolderError
from fedkd.files import write_atomically
from fedkd.tasks import Vocabulary

FILE = "tokenizer.json"


def keep(folder: Path, tokenizers: Mapping[str, Tokenizer]) -> None:
    """Write the student's tokeniser into a run's folder; nothing where it takes no texts."""
    if len(tokenizers) == 1:
        (only,) = tokenizers.values()
        write_atomically(folder / FILE, only.content)


def read(folder: Path, vocabulary: Vocabulary, agreed: Mapping[str, str]) -> Tokenizer:
    """The tokeniser that `keep` wrote.

    Args:
        folder: of the run.
        vocabulary: its tokens.
        agreed: the SHA-256 of the run's tokenisers by name; empty: they were not written down.

    Raises:
        RunFolderError: it is missing, cannot be read, or is another one.
    """
    try:
        found = Tokenizer((folder / FILE).read_text(encoding="utf-8"), vocabulary)
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(
            f"run folder {str(folder)!r}: its {FILE} cannot be read ({error}), without which its "
            "student takes no texts: finish the run with --resume, or run it again"
        ) from error
    if agreed and found.digest not in agreed.values():
        raise RunFolderError(
            f"run folder {str(folder)!r}: its {FILE} has SHA-256 {found.digest[:16]}..., which is "
            "none that its config.toml names (data.text.sha256): put the run's own back"
        )
    return found
