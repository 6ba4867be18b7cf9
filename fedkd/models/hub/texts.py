"""Hugging Face's models of texts: how they take token numbers, and give what a task asks for."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.models.text import base
from fedkd.tasks import Task, Vocabulary

Named = dict[str, Any]

_AUTO: Mapping[str, str] = {
    "classes": "AutoModelForSequenceClassification",
    "binary": "AutoModelForSequenceClassification",
    "numbers": "AutoModelForSequenceClassification",
    "identities": "AutoModel",
    "tags": "AutoModelForTokenClassification",
    "spans": "AutoModelForQuestionAnswering",
    "next-tokens": "AutoModelForCausalLM",
    "tokens": "AutoModelForSeq2SeqLM",
}
"""For each kind of targets the library's class that chooses a model by its configuration."""


def auto_of(task: Task, *, pooled: bool) -> str:
    """The library's class for a task of texts; `pooled`: states alone, see `adapt`."""
    return "AutoModel" if pooled else _AUTO[task.targets]


def fit(config: Any, task: Task, name: str) -> None:
    """Refuse a configuration whose model knows too few tokens, or takes texts that are too short.

    Raises:
        ConfigError: so it is.
    """
    words = base.words_of(task)
    known = getattr(config, "vocab_size", None)
    if known is not None and known < words.size:
        raise ConfigError(
            f"model 'hf/{name}' knows {known} tokens, and the tokeniser has {words.size}: use the "
            "tokeniser of its folder, data.text.tokenizer = 'FOLDER'"
        )
    most, length = getattr(config, "max_position_embeddings", None), _length(task)
    if most is not None and most < length:
        raise ConfigError(
            f"model 'hf/{name}' takes {most} tokens, and texts have up to {length}: lower "
            "data.text.length, and have longer texts cut, data.text.cut = true"
        )


def adapt(model: nn.Module, task: Task, *, pooled: bool) -> None:
    """Have a model take the task's inputs and give its answers, by hooks.

    One that is `pooled` gives states alone. Their mean over tokens that count goes through a linear
    layer, `classifier`; an embedding of the width that is asked for is the mean itself.
    """
    words = base.words_of(task)
    if pooled:
        width, answers = model.config.hidden_size, task.answer[-1]  # type: ignore[union-attr]
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # type: ignore[assignment] # of one token, and not asked
        if task.targets != "identities" or width != answers:
            model.add_module("classifier", nn.Linear(int(width), answers))  # type: ignore[arg-type]
    writes = task.targets == "tokens"
    take = _taking_both(words.padding, _length(task)) if writes else _taking(words, model)
    model.register_forward_pre_hook(take, with_kwargs=True)
    answer = _answering(task, pooled=pooled)
    model.register_forward_hook(answer, with_kwargs=True)


def segments(ids: Tensor, counted: Tensor, end: int) -> Tensor:
    """Which text of a pair each token is of, int64 (N, L): 0 up to the first end, 1 after it.

    So BERT numbers them (Devlin et al. 2019, arXiv:1810.04805); padding is 0.
    """
    ends = (ids == end).long()
    return ((ends.cumsum(dim=1) - ends > 0) & counted).long()


def _taking(words: Vocabulary, model: nn.Module) -> Callable[..., Any]:
    """A hook that gives a model token numbers (N, L), or several texts a record (N, M, L)."""
    # Models of one type, such as RoBERTa, have no embedding of a second.
    types = getattr(model.config, "type_vocab_size", 1) > 1

    def take(
        _model: nn.Module, inputs: tuple[Any, ...], named: Named
    ) -> tuple[tuple[Any, ...], Named]:
        if not inputs:
            return inputs, named
        ids, counted = _read(inputs[0].flatten(0, -2), words.padding)
        own = {"input_ids": ids, "attention_mask": counted.long()}
        if types:
            own["token_type_ids"] = segments(ids, counted, words.end)
        return (), {**own, **named}

    return take


def _taking_both(padding: int, length: int) -> Callable[..., Any]:
    """A hook that gives a model a text and what it wrote before, side by side (N, 2 L - 1)."""

    def take(
        _model: nn.Module, inputs: tuple[Any, ...], named: Named
    ) -> tuple[tuple[Any, ...], Named]:
        if not inputs:
            return inputs, named
        ids, counted = _read(inputs[0][:, :length], padding)
        written, there = _read(inputs[0][:, length:], padding)
        own = {"input_ids": ids, "attention_mask": counted.long()}
        own |= {"decoder_input_ids": written, "decoder_attention_mask": there.long()}
        return (), {**own, **named}

    return take


def _answering(task: Task, *, pooled: bool) -> Callable[..., Tensor]:
    """A hook that makes the task's answer of what the library's model gives."""
    length = task.answer[0] if len(task.answer) == 2 else task.inputs[-1]

    def answer(model: nn.Module, _inputs: Any, named: Named, output: Any) -> Tensor:
        counted = named["attention_mask"].bool()
        if pooled:
            mean = base.mean(output.last_hidden_state, counted)
            head = getattr(model, "classifier", None)
            rows: Tensor = mean if head is None else head(mean)
            return rows.reshape(-1, *task.answer)
        if task.targets == "spans":
            both = torch.stack([output.start_logits, output.end_logits], dim=1)
            return _spread(both.masked_fill(~counted.unsqueeze(1), base.NOWHERE), task.answer[-1])
        logits: Tensor = output.logits
        if task.targets not in ("tags", "tokens", "next-tokens"):
            return logits
        there = counted if task.targets != "tokens" else named["decoder_attention_mask"].bool()
        own = logits[..., : task.answer[-1]].masked_fill(~there.unsqueeze(-1), 0.0)
        return base.whole(own, length)

    return answer


def _spread(places: Tensor, length: int) -> Tensor:
    """Logits of places (N, 2, K) with none for what was left out as padding: (N, 2, length)."""
    return nn.functional.pad(places, (0, length - places.shape[2]), value=base.NOWHERE)


def _read(x: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """As `text.base.read`; the first token counts always, so that attention has one to look at."""
    ids, counted = base.read(x, padding)
    first = torch.arange(ids.shape[1], device=ids.device) == 0
    return ids, counted | first


def _length(task: Task) -> int:
    """L, how many tokens a text may have."""
    return (task.inputs[-1] + 1) // 2 if task.targets == "tokens" else task.inputs[-1]
