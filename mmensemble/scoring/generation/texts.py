"""Encoded prompts → texts, batch by batch, around the decoding loop."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from tokenizers import Tokenizer

from mmensemble.exceptions import ConfigurationError
from mmensemble.preprocessing import PRESENT, Encoded, Preprocessor, PromptPreprocessor
from mmensemble.preprocessing.text import read_tokenizer
from mmensemble.scoring.batching import call_now
from mmensemble.scoring.generation.loop import Decoder, generate_tokens
from mmensemble.scoring.generation.settings import GenerationSettings
from mmensemble.tasks import Generation

__all__ = ["generate_texts", "room_for_prompt", "start_texts"]


def room_for_prompt(task: Generation, settings: GenerationSettings) -> int | None:
    """Return how many tokens a prompt may have, so that what is written behind it fits; None for any number.

    Raises
    ------
    ConfigurationError
        If `max_new_tokens` is more than the network can write.
    """
    if task.max_length is None:
        return None
    room = task.max_length - settings.max_new_tokens
    least = max(1, len(task.start_ids))
    if room < least:
        raise ConfigurationError(
            f"max_new_tokens={settings.max_new_tokens} is too many: the network has {task.max_length} positions, "
            f"and {least} or more of them are taken before"
        )
    return room


def generate_texts(
    decoder: Decoder,
    preprocessor: Preprocessor,
    encoded: Encoded,
    task: Generation,
    settings: GenerationSettings,
    *,
    batch_size: int,
    first_row: int = 0,
) -> np.ndarray:
    """Continue encoded rows, batch by batch.

    Parameters
    ----------
    decoder : Decoder
    preprocessor : Preprocessor
        What encoded the rows.
    encoded : Encoded
        Of prompts that are too long for the network, the last tokens are kept.
    task : Generation
    settings : GenerationSettings
    batch_size : int
        Most sequences that are written side by side.
    first_row : int, default=0
        The number of the first row in the data, of which these rows are a piece.

    Returns
    -------
    ndarray of object, shape (n_rows, num_return_sequences)
        Strings, without special tokens; None in rows that are missing.

    Raises
    ------
    ConfigurationError
        If `max_new_tokens` is more than the network can write.
    """
    return start_texts(
        decoder, preprocessor, encoded, task, settings, batch_size=batch_size, first_row=first_row, call=call_now
    )()


def start_texts(
    decoder: Decoder,
    preprocessor: Preprocessor,
    encoded: Encoded,
    task: Generation,
    settings: GenerationSettings,
    *,
    batch_size: int,
    first_row: int,
    call: Callable[..., Future[np.ndarray]],
) -> Callable[[], np.ndarray]:
    """Begin what `generate_texts` does, with `call` for each batch, which may do it in a thread.

    Returns
    -------
    callable
        Waits for the texts and returns them.
    """
    room = room_for_prompt(task, settings)
    if room is not None and isinstance(preprocessor, PromptPreprocessor):
        encoded = preprocessor.shortened(encoded, room)
    tokenizer = read_tokenizer(task.tokenizer or preprocessor.to_dict()["tokenizer"], None)
    present = np.flatnonzero(encoded.present)
    present = present[np.argsort(-encoded.lengths[present], kind="stable")]

    def write(rows: np.ndarray) -> np.ndarray:
        inputs = preprocessor.collate(encoded, rows)
        del inputs[PRESENT]
        texts = np.empty((len(rows), settings.num_return_sequences), dtype=object)
        written = generate_tokens(decoder, inputs, settings, end_ids=task.end_ids, rows=first_row + rows)
        for place, (row, sequences) in enumerate(zip(rows, written, strict=True)):
            before = task.start_ids or encoded.items[row].tolist()
            texts[place] = [_text(tokenizer, before, sequence.tolist()) for sequence in sequences]
        return texts

    # Batches of like size, since they may run side by side.
    n_batches = -(-len(present) // settings.rows_at_once(batch_size))
    batches = [(rows, call(write, rows)) for rows in np.array_split(present, n_batches)] if n_batches else []

    def result() -> np.ndarray:
        texts = np.full((len(encoded), settings.num_return_sequences), None, dtype=object)
        for rows, written in batches:
            texts[rows] = written.result()
        return texts

    return result


def _text(tokenizer: Tokenizer, before: list[int], new: list[int]) -> str:
    """Return what new tokens add to the text of those before them, special tokens left out."""
    # A tokenizer may drop the space at the start of what it decodes, so both are decoded together where that works.
    prompt, whole = (tokenizer.decode(ids, skip_special_tokens=True) for ids in (before, before + new))
    text: str = whole[len(prompt) :] if whole.startswith(prompt) else tokenizer.decode(new, skip_special_tokens=True)
    return text
