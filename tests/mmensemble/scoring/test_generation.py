"""The decoding loop over decoders whose scores are known, without any network."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mmensemble import ConfigurationError
from mmensemble.preprocessing import Encoded, PromptPreprocessor
from mmensemble.scoring.generation import GenerationSettings, generate_texts, generate_tokens, log_softmax
from mmensemble.tasks import Generation, task_from_dict

END = 0


class Chain:
    """A decoder whose scores depend on a row's last token alone: the logarithms of a matrix of probabilities.

    It notes how many rows each step ran.
    """

    def __init__(self, probabilities: np.ndarray) -> None:
        with np.errstate(divide="ignore"):
            self.scores = np.log(probabilities).astype(np.float32).clip(-1e4)
        self.n_rows: list[int] = []

    def prefill(self, inputs):
        self.n_rows.append(len(inputs["input_ids"]))
        last = inputs["input_ids"][:, -1]
        return self.scores[last], last

    def step(self, tokens, state):
        assert len(tokens) == len(state)
        self.n_rows.append(len(tokens))
        return self.scores[tokens], tokens

    def select(self, state, rows):
        return state[rows]


# From 1: mostly 2, which is followed by anything; 3 is less probable, and always followed by the end.
FORKED = np.array([[1, 0, 0, 0], [0, 0, 0.6, 0.4], [0.1, 0.3, 0.3, 0.3], [1, 0, 0, 0]])


def written(probabilities, prompts, *, end_ids=(END,), rows=None, **settings):
    decoder = Chain(np.asarray(probabilities))
    inputs = {"input_ids": np.asarray(prompts)[:, None]}
    rows = np.arange(len(prompts)) if rows is None else np.asarray(rows)
    settings = GenerationSettings.of(**{"random_state": 0, **settings})
    texts = generate_tokens(decoder, inputs, settings, end_ids=list(end_ids), rows=rows)
    return [[sequence.tolist() for sequence in sequences] for sequences in texts], decoder


def test_greedy_takes_the_most_probable_token_until_the_end() -> None:
    chain = np.eye(4)[[0, 2, 3, 0]]  # 1 → 2 → 3 → end
    texts, decoder = written(chain, [1, 2, 3], temperature=0, max_new_tokens=9)
    assert texts == [[[2, 3]], [[3]], [[]]]
    # A row that has ended is run no more once it is a fourth of the batch.
    assert decoder.n_rows == [3, 2, 1]


def test_greedy_stops_at_the_most_tokens_and_without_an_end_token() -> None:
    loop = np.eye(3)[[0, 2, 1]]
    assert written(loop, [1], temperature=0, max_new_tokens=3)[0] == [[[2, 1, 2]]]
    assert written(np.eye(2)[[1, 0]], [0], end_ids=(), temperature=0, max_new_tokens=4)[0] == [[[1, 0, 1, 0]]]


def test_any_of_several_end_tokens_ends() -> None:
    assert written(np.eye(4)[[0, 2, 3, 0]], [1], end_ids=(0, 3), temperature=0, max_new_tokens=9)[0] == [[[2]]]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_samples_have_the_distribution(temperature: float) -> None:
    probabilities = np.array([[0.05, 0.15, 0.2, 0.6]] * 4)
    texts, _ = written(
        probabilities, [1] * 4, end_ids=(), max_new_tokens=50, num_return_sequences=50, temperature=temperature
    )
    found = np.bincount(np.ravel(texts), minlength=4) / 10_000
    expected = probabilities[0] ** (1 / temperature)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.015)


@pytest.mark.parametrize(
    ("settings", "drawn"),
    [
        ({"top_k": 1}, {3}),
        ({"top_k": 2}, {2, 3}),
        ({"top_k": 99}, {0, 1, 2, 3}),
        ({"top_p": 0.5}, {3}),
        ({"top_p": 0.61}, {2, 3}),
        ({"top_p": 0.81}, {1, 2, 3}),
        ({"top_p": 1.0}, {0, 1, 2, 3}),
        ({"top_k": 2, "top_p": 0.7}, {3}),  # 0.6 of the 0.8 that are left
    ],
)
def test_top_k_and_top_p_draw_among_the_most_probable(settings: dict, drawn: set) -> None:
    probabilities = np.array([[0.05, 0.15, 0.2, 0.6]] * 4)
    texts, _ = written(probabilities, [1], end_ids=(), max_new_tokens=400, **settings)
    assert set(texts[0][0]) == drawn


def test_a_sample_depends_on_seed_row_and_sequence_and_not_on_the_batch() -> None:
    probabilities = np.full((6, 6), 1 / 6)
    settings = {"max_new_tokens": 12, "num_return_sequences": 2}
    texts, _ = written(probabilities, [1, 2, 3], **settings)
    assert written(probabilities, [1, 2, 3], **settings)[0] == texts
    assert written(probabilities, [3], rows=[2], **settings)[0] == texts[2:]
    assert written(probabilities, [1, 2, 3], random_state=1, **settings)[0] != texts
    assert texts[0][0] != texts[0][1]
    assert written(probabilities, [1, 1], **settings)[0][0] != written(probabilities, [1, 1], **settings)[0][1]
    longer, _ = written(probabilities, [1, 2, 3], max_new_tokens=20, num_return_sequences=2)
    assert all(
        a == b[: len(a)] for one, other in zip(texts, longer, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_beams_find_what_greedy_misses() -> None:
    greedy, _ = written(FORKED, [1], temperature=0, max_new_tokens=2)
    beams, _ = written(FORKED, [1], num_beams=2, max_new_tokens=2)
    assert greedy == [[[2, 1]]]
    assert beams == [[[3]]]  # 0.4, and greedy's 0.6 × 0.3


@pytest.mark.parametrize("longest", [1, 2, 3, 4])
def test_beams_that_keep_everything_find_the_best_of_all_sequences(longest: int) -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.full(4, 0.7), size=4)
    chains = {}
    for tokens in product(range(4), repeat=longest):
        sequence = list(tokens[: tokens.index(END) + 1]) if END in tokens else list(tokens)
        steps = zip([1, *sequence[:-1]], sequence, strict=True)
        chains[tuple(sequence)] = sum(np.log(probabilities[a, b]) for a, b in steps) / len(sequence)
    best = sorted(chains, key=chains.get, reverse=True)[0]
    texts, _ = written(probabilities, [1], num_beams=4**longest, max_new_tokens=longest)
    assert texts[0][0] == [token for token in best if token != END]


def test_beams_of_a_row_do_not_depend_on_the_batch() -> None:
    probabilities = np.random.default_rng(1).dirichlet(np.ones(7), size=7)
    together, _ = written(probabilities, [1, 2, 3, 4], num_beams=3, num_return_sequences=3, max_new_tokens=8)
    for row in range(4):
        alone, _ = written(probabilities, [row + 1], num_beams=3, num_return_sequences=3, max_new_tokens=8)
        assert alone[0] == together[row]
        assert len({tuple(text) for text in alone[0]}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be an integer of at least 1, not 0"),
        ({"num_return_sequences": 1.5}, "num_return_sequences"),
        ({"num_beams": True}, "num_beams"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, r"top_p must be a number in \(0, 1\], not 0.0"),
        ({"top_p": 1.1}, "top_p"),
        ({"temperature": -1.0}, "temperature must be a number of at least 0"),
        ({"temperature": np.inf}, "temperature"),
        ({"random_state": "a"}, "random_state"),
        ({"random_state": -1}, "random_state"),
        ({"num_beams": 2, "temperature": 0.5}, "beam search draws nothing"),
        ({"num_beams": 2, "top_k": 5}, "beam search draws nothing"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_beams=2 beams cannot give"),
        ({"temperature": 0, "num_return_sequences": 2}, "one most probable sequence"),
    ],
)
def test_settings_that_cannot_work(settings: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        GenerationSettings.of(**settings)


def test_seeds() -> None:
    assert GenerationSettings.of(random_state=7).seed == 7
    assert GenerationSettings.of().seed != GenerationSettings.of().seed
    for make in (np.random.RandomState, np.random.default_rng):
        assert GenerationSettings.of(random_state=make(3)).seed == GenerationSettings.of(random_state=make(3)).seed


def test_log_softmax() -> None:
    values = log_softmax(np.array([[1e5, 0.0], [0.0, 0.0]], dtype=np.float32))
    np.testing.assert_allclose(values, [[0, -1e5], [-np.log(2), -np.log(2)]])


@pytest.fixture
def prompts() -> PromptPreprocessor:
    return PromptPreprocessor.train(["one two three", "größer — ещё"], vocab_size=258, max_length=40)


def texts_of(prompts: PromptPreprocessor, cells: list, *, max_length: int | None = None, **settings) -> np.ndarray:
    """Write the successor of each byte, in the alphabet of the vocabulary."""
    task = Generation(
        vocab_size=258, end_ids=[1], start_ids=[], max_length=max_length, state={}, encoded={}, tokenizer=None
    )
    successor = np.roll(np.eye(258), 1, axis=1)
    settings = GenerationSettings.of(**{"temperature": 0, "max_new_tokens": 3, **settings})
    encoded: Encoded = prompts.encode(cells)
    return generate_texts(Chain(successor), prompts, encoded, task, settings, batch_size=2)


def test_texts_are_in_the_order_of_the_rows_and_none_where_missing(prompts: PromptPreprocessor) -> None:
    texts = texts_of(prompts, ["a", None, "three 1", "A", "xyz"])
    assert texts.shape == (5, 1)
    assert texts[:, 0].tolist() == ["bcd", None, "234", "BCD", "{|}"]
    assert texts_of(prompts, []).shape == (0, 1)
    assert texts_of(prompts, ["a", "b"], num_beams=2, num_return_sequences=2, temperature=1).shape == (2, 2)


def test_a_piece_of_the_rows_gets_what_it_gets_among_all(prompts: PromptPreprocessor) -> None:
    task = Generation(vocab_size=258, end_ids=[1], start_ids=[], max_length=None, state={}, encoded={})
    settings = GenerationSettings.of(max_new_tokens=5, num_return_sequences=2, random_state=3)

    def write(cells: list, **options) -> list:
        chain = Chain(np.full((258, 258), 1 / 258))
        return generate_texts(chain, prompts, prompts.encode(cells), task, settings, batch_size=4, **options).tolist()

    cells = ["a", "bcd", None, "ef", "a"]
    assert write(cells[:2]) + write(cells[2:], first_row=2) == write(cells)
    assert write(cells[:1]) != write(cells[:1], first_row=4)


def test_a_text_that_is_too_long_is_refused_and_a_prompt_that_is_too_long_keeps_its_end(
    prompts: PromptPreprocessor,
) -> None:
    assert texts_of(prompts, ["abcdefghi"], max_length=6).tolist() == [["jkl"]]
    with pytest.raises(ConfigurationError, match="max_new_tokens=6 is too many: the network has 6 positions"):
        texts_of(prompts, ["a"], max_length=6, max_new_tokens=6)


def test_task_is_kept_as_json() -> None:
    from mmensemble.preprocessing import TensorSpec

    task = Generation(
        vocab_size=9,
        end_ids=[1],
        start_ids=[2],
        max_length=5,
        state={"key.0": TensorSpec("float32", ("batch", 2, "capacity", 4))},
        encoded={"mask": TensorSpec("bool", ("batch", "source"))},
        tokenizer="{}",
    )
    assert task_from_dict(task.to_dict()) == task
    decoder = ["decoder.encode", "decoder.input_ids", "decoder.attention_mask"]
    assert task.further_inputs == ["state.mask", "state.key.0", "decoder.past", *decoder]
    with pytest.raises(AttributeError, match="use generate"):
        task.predict(np.zeros((1, 9)))
