from __future__ import annotations

from typing import Any

import pytest
import torch

from sightline.errors import ModelError
from sightline.reader import Reader
from tiny_model import DOCUMENT


@pytest.fixture
def tokens(tokenizer: Any) -> list[int]:
    return tokenizer(DOCUMENT * 3)["input_ids"]


def test_generation_is_the_models_own_greedy_generation(pair: tuple[Any, Any], tokens: list[int]) -> None:
    model, _ = pair
    reader = Reader(model)
    reader.read(tokens[:-1])
    mine = reader.generate(tokens[-1], 20, stop=())
    theirs = model.generate(torch.tensor([tokens]), max_new_tokens=20, do_sample=False, eos_token_id=-1)
    assert mine == theirs[0, len(tokens) :].tolist()


def test_generation_ends_at_a_stop_token_and_leaves_it_out(pair: tuple[Any, Any], tokens: list[int]) -> None:
    reader = Reader(pair[0])
    reader.read(tokens[:-1])
    free = reader.generate(tokens[-1], 20, stop=())
    reader.rewind(len(tokens) - 1)
    stop = free[5]
    assert reader.generate(tokens[-1], 20, stop={stop}) == free[: free.index(stop)]


def test_reading_in_chunks_after_rewinding_equals_one_pass(
    pair: tuple[Any, Any], tokens: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = pair
    monkeypatch.setattr("sightline.reader._CHUNK", 7)
    reader = Reader(model)
    heard: list[int] = []
    reader.read(tokens[:50], heard.append)
    assert heard == [7, 14, 21, 28, 35, 42, 49, 50]
    reader.read(tokens[:9])
    reader.rewind(50)
    reader.read(tokens[50:90])
    assert reader.length == 90
    answer = tokens[91:97]
    with torch.no_grad():
        logits = model(torch.tensor([tokens[:97]])).logits[0]
    expected = torch.log_softmax(logits[90:96], -1).gather(1, torch.tensor(answer)[:, None]).sum()
    assert reader.log_prob([tokens[90]], answer) == pytest.approx(float(expected), abs=1e-3)
    assert reader.length == 90
    # However much is left to read: the answer's rows are in the last chunk, whole.
    for read in (89, 84, 60, 0):
        reader.rewind(read)
        heard.clear()
        assert reader.log_prob(tokens[read:91], answer, heard.append) == pytest.approx(float(expected), abs=1e-3)
        assert reader.length == read
        assert heard == [done for done in heard if done <= 91 - read]


def test_a_stream_tells_how_likely_each_token_was(pair: tuple[Any, Any], tokens: list[int]) -> None:
    reader = Reader(pair[0])
    reader.read(tokens[:-1])
    steps = list(reader.stream(tokens[-1], 5, stop=()))
    reader.rewind(len(tokens) - 1)
    known = sum(step.log_prob for step in steps)
    assert known == pytest.approx(reader.log_prob(tokens[-1:], [step.token for step in steps]), abs=1e-4)
    assert known < -1e-3


def test_nothing_of_the_graph_stays_in_the_cache(pair: tuple[Any, Any], tokens: list[int]) -> None:
    reader = Reader(pair[0])
    reader.read(tokens[:-1])
    before = reader.log_prob(tokens[-1:], tokens[:4])
    total, leaf = reader.differentiable_log_prob(tokens[-1], tokens[:4])
    assert total.requires_grad
    assert leaf.shape[1] == 4
    assert reader.length == len(tokens) - 1
    assert reader.log_prob(tokens[-1:], tokens[:4]) == before
    assert not any(layer.keys.requires_grad for layer in reader._cache.layers)


def test_a_model_that_cannot_go_back_is_refused(pair: tuple[Any, Any]) -> None:
    model, _ = pair
    model._is_stateful = True
    with pytest.raises(ModelError, match="cannot go back to an earlier position"):
        Reader(model)


def test_a_fork_goes_its_own_way(pair: tuple[Any, Any], tokens: list[int]) -> None:
    reader = Reader(pair[0])
    reader.read(tokens[:40])
    wanted = reader.log_prob([tokens[40]], tokens[41:50])
    fork = reader.fork()
    fork.rewind(20)
    fork.read(tokens[60:90])
    assert (reader.length, fork.length) == (40, 50)
    assert reader.log_prob([tokens[40]], tokens[41:50]) == wanted
    assert fork.log_prob([tokens[40]], tokens[41:50]) != wanted
    reader.read(tokens[40:45])
    assert fork.length == 50
