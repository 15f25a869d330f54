"""Annotators against their probabilities; files against what they say, and against every way to be wrong."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import preferences
from sandbox.algebra import sigmoid
from sandbox.preferences import END, TextPair, TokenPairs, read_pairs
from tests.tolerances import assert_close, monte_carlo

REWARDS = jnp.array([0.0, 1.0, -2.0, 0.5])


# -- annotators ------------------------------------------------------------------------------------------------------


def test_bradley_terry_is_the_sigmoid_of_the_reward_gap():
    p = preferences.preference_matrix(preferences.bradley_terry, REWARDS)
    assert_close(p, sigmoid(REWARDS[:, None] - REWARDS[None, :]))
    assert_close(p + p.T, 1)


def test_noise_pulls_towards_a_coin_and_turns_over_beyond():
    p = preferences.preference_matrix(preferences.bradley_terry, REWARDS)
    assert_close(preferences.noisy(p, 0), p)
    assert_close(preferences.noisy(p, 0.5), 0.5)
    assert_close(preferences.noisy(p, 1), p.T)
    assert_close(preferences.noisy(0.9, 0.1), 0.82)


def test_groups_are_averaged_in_probability_not_in_reward():
    rewards = jnp.array([[3.0, -1.0], [0.0, 0.0]])  # (N, groups)
    p = preferences.preference_matrix(partial(preferences.pluralistic, jnp.array([0.25, 0.75])), rewards)
    assert_close(p[0, 1], 0.25 * sigmoid(3.0) + 0.75 * sigmoid(-1.0))
    assert_close(p + p.T, 1)
    assert_close(jnp.diagonal(p), 0.5)
    assert p[0, 1] < 0.5  # most prefer the second response, though the mean rewards, and their gap, are equal


def test_a_cycle_has_no_best_response():
    log_odds = preferences.cycle(5, 2.0)
    assert_close(log_odds, -log_odds.T)
    p = preferences.intransitive(log_odds)
    assert_close(p + p.T, 1)
    assert_close(jnp.mean(p, axis=1), 0.5)
    for i in range(5):
        assert_close(p[i, (i + 1) % 5], sigmoid(2.0))
        assert_close(p[i, (i + 2) % 5], 0.5)


@pytest.mark.parametrize(
    "p",
    [
        preferences.preference_matrix(preferences.bradley_terry, REWARDS),
        preferences.noisy(preferences.preference_matrix(preferences.bradley_terry, REWARDS), 0.2),
        preferences.intransitive(preferences.cycle(4, 1.5)),
    ],
    ids=["bradley_terry", "noisy", "cycle"],
)
def test_frequencies_of_sampled_pairs(p):
    n = 40_000
    pairs = preferences.sample_pairs(jax.random.key(0), p, n)
    assert pairs.chosen.shape == pairs.rejected.shape == (n,)
    counts = np.zeros((4, 4))
    np.add.at(counts, (pairs.chosen, pairs.rejected), 1)
    assert not counts.diagonal().any()
    met = counts + counts.T + np.eye(4)
    z = (counts / met - np.asarray(p)) * np.sqrt(met / (np.asarray(p) * (1 - np.asarray(p))))
    assert_close(z[~np.eye(4, dtype=bool)], 0, monte_carlo(1), "share of wins, in standard errors")
    expected = n / 6
    assert_close(met[np.triu_indices(4, 1)], expected, monte_carlo(np.sqrt(expected * 5 / 6)), "how often two meet")


def test_labels_of_given_candidates():
    certain = jnp.array([[0.5, 1.0], [0.0, 0.5]])
    first, second = jnp.array([0, 1, 1]), jnp.array([1, 0, 0])
    pairs = preferences.label(jax.random.key(0), certain, first, second)
    assert pairs.chosen.tolist() == [0, 0, 0] and pairs.rejected.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preferences.sample_pairs(jax.random.key(0), jnp.array([[0.5]]), 3), "preference: 1 response"),
        (lambda: preferences.sample_pairs(jax.random.key(0), jnp.full((2, 2), 1.5), 3), r"preference\[0, 0\] = 1.5"),
        (lambda: preferences.sample_pairs(jax.random.key(0), jnp.full((2, 2), 0.6), 3), "preference \\+ its transpose"),
        (lambda: preferences.cycle(2, 1.0), "size = 2"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- files -----------------------------------------------------------------------------------------------------------

GOOD = {"prompt": "Is it raining?", "chosen": "Yes, a little.", "rejected": "No."}
USER = {"role": "user", "content": "Is it raining?"}


def says(content):
    return {"role": "assistant", "content": content}


def write(path: Path, *lines: object) -> Path:
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines) + b"\n")
    return path


TEXT = st.text(max_size=12)
SAID = TEXT.filter(str.strip)


@given(st.lists(st.tuples(TEXT, SAID, SAID).filter(lambda t: t[1] != t[2]), min_size=1, max_size=4), st.booleans())
def test_what_is_written_is_read(rows, as_messages):
    pairs = [TextPair(*row) for row in rows]
    wrap = (lambda s: [says(s)]) if as_messages else (lambda s: s)
    lines = [{"prompt": p.prompt, "chosen": wrap(p.chosen), "rejected": wrap(p.rejected)} for p in pairs]
    with tempfile.TemporaryDirectory() as folder:
        assert read_pairs(write(Path(folder, "pairs.jsonl"), *lines)) == pairs


def test_messages_become_text(tmp_path):
    record = {
        "prompt": [{"role": "system", "content": "Be brief."}, USER],
        "chosen": [says("Yes."), {"role": "user", "content": "Sure?"}, says("Sure.")],
        "rejected": [says("No.")],
        "score_chosen": 8.0,
    }
    (pair,) = read_pairs(write(tmp_path / "pairs.jsonl", record))
    assert pair == TextPair("system: Be brief.\nuser: Is it raining?", "Yes.\nuser: Sure?\nassistant: Sure.", "No.")


def test_a_conversation_repeated_in_both_responses_is_the_prompt(tmp_path):
    record = {"prompt": USER["content"], "chosen": [USER, says("Yes.")], "rejected": [USER, says("No.")]}
    again = record | {"prompt": [USER]}
    shared_start = record | {
        "chosen": [USER, says("Well"), says("Yes.")],
        "rejected": [USER, says("Well"), says("No.")],
    }
    pairs = read_pairs(write(tmp_path / "pairs.jsonl", record, again, shared_start))
    assert [pair.chosen for pair in pairs] == ["Yes.", "Yes.", "Well\nassistant: Yes."]


def test_blank_lines_a_byte_order_mark_and_line_ends_do_not_matter(tmp_path):
    line = json.dumps(GOOD).encode()
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n  \n" + line)
    assert read_pairs(path) == [TextPair(**GOOD)] * 2


BAD = {
    "not JSON": (b'{"prompt": "x", "chosen": ', "not JSON: Expecting value at column"),
    "not UTF-8": (b'{"prompt": "\xff"}', "utf-8"),
    "nested too deep": (b"[" * 100_000, "recursion"),
    "a list": ([1], "must be an object with prompt, chosen, rejected, not a list"),
    "a number": (3, "not a number"),
    "missing": ({"prompt": "x", "chosen": "y"}, "missing field(s) rejected"),
    "unknown": (GOOD | {"chosen_respose": "z", "answer": "a"}, "unknown field(s) answer, chosen_respose"),
    "missing and unknown": (
        {"prompt": "x", "chosen": "y", "reject": "z"},
        "field(s) rejected; unknown field(s) reject",
    ),
    "twice": (b'{"prompt": "x", "chosen": "y", "rejected": "z", "chosen": "w"}', "the same field twice"),
    "null": (GOOD | {"chosen": None}, "chosen: must be a string or a list of messages, not null"),
    "empty": (GOOD | {"rejected": " "}, "rejected: empty"),
    "no messages": (GOOD | {"rejected": []}, "rejected: empty"),
    "empty message": (GOOD | {"rejected": [says("")]}, "rejected: empty"),
    "no role": (GOOD | {"rejected": [{"content": "x"}]}, "rejected: message 1 must have the strings role and content"),
    "equal": (GOOD | {"rejected": GOOD["chosen"]}, "chosen and rejected are the same"),
    "equal as text": (GOOD | {"rejected": [says(GOOD["chosen"])]}, "chosen and rejected are the same"),
    "user's words": (GOOD | {"rejected": [USER]}, "rejected: begins with a message of 'user'"),
    "another prompt": (
        {"prompt": "Hello", "chosen": [USER, says("Yes.")], "rejected": [USER, says("No.")]},
        "begin with messages that do not repeat the prompt",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_line_is_named(tmp_path, what):
    line, message = BAD[what]
    with pytest.raises(ValueError) as error:
        read_pairs(write(tmp_path / "pairs.jsonl", GOOD, line, GOOD))
    assert "pairs.jsonl: 1 bad line(s)" in str(error.value)
    (reported,) = str(error.value).splitlines()[1:]
    assert reported.startswith("  line 2: ") and message in reported


def test_all_bad_lines_are_named_together(tmp_path):
    lines = [line for line, _ in BAD.values()]
    with pytest.raises(ValueError) as error:
        read_pairs(write(tmp_path / "pairs.jsonl", GOOD, *lines))
    reported = str(error.value).splitlines()[1:]
    assert [int(row.split("line ")[1].split(":")[0]) for row in reported] == list(range(2, len(lines) + 2))


def test_no_pairs_and_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"pairs\.jsonl: no pairs"):
        read_pairs(write(tmp_path / "pairs.jsonl", b""))
    with pytest.raises(FileNotFoundError):
        read_pairs(tmp_path / "absent.jsonl")


# -- tokens ----------------------------------------------------------------------------------------------------------


@given(st.text())
def test_tokens_are_the_text(text):
    assert "".join(preferences.tokenize(text)) == text


def test_a_tiny_example_by_hand():
    assert preferences.tokenize("No, it isn't  so.") == ["No", ",", " it", " isn", "'", "t", " ", " so", "."]
    pairs = [TextPair("Rain?", "Yes", "No no"), TextPair("", "No", "Yes")]
    ids = preferences.vocabulary(text for pair in pairs for text in pair)
    assert ids == {END: 0, "Rain": 1, "?": 2, "Yes": 3, "No": 4, " no": 5}
    found = preferences.encode_pairs(pairs, ids)
    expected = TokenPairs(
        prompt=np.array([[1, 2], [0, 0]]),
        prompt_mask=np.array([[True, True], [False, False]]),
        chosen=np.array([[3, 0], [4, 0]]),
        chosen_mask=np.array([[True, True], [True, True]]),
        rejected=np.array([[4, 5, 0], [3, 0, 0]]),
        rejected_mask=np.array([[True, True, True], [True, True, False]]),
    )
    for field, got, wanted in zip(TokenPairs._fields, found, expected, strict=True):
        assert np.array_equal(got, wanted) and got.dtype.kind == wanted.dtype.kind, field


def test_a_token_outside_the_vocabulary_is_named():
    with pytest.raises(ValueError, match="tokens outside the vocabulary: ' snow'"):
        preferences.encode("Yes snow snow", preferences.vocabulary(["Yes"]))
