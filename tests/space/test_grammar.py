"""The sweep grammar: what each text means, and that what means nothing is refused by name."""

from __future__ import annotations

import math

import pytest

from dlsearch.core.errors import ConfigError
from dlsearch.space.builders import build_dimension
from dlsearch.space.dimension import Dimension
from dlsearch.space.grammar import parse_value
from dlsearch.space.space import Space

# (what is written, kind, low, high, log, step, choices)
NUMBERS = [
    ("interval(0, 0.5)", "float", 0.0, 0.5, False, None),
    ("interval(1, 5)", "float", 1.0, 5.0, False, None),
    ("interval(-1e-3, 1E3)", "float", -1e-3, 1e3, False, None),
    ("interval(start=1, end=2)", "float", 1.0, 2.0, False, None),
    ("tag(log, interval(1e-4, 1e-1))", "float", 1e-4, 1e-1, True, None),
    ("tag(log,interval(1,100))", "float", 1.0, 100.0, True, None),
    ("tag(float, interval(1, 100))", "float", 1.0, 100.0, False, None),
    ("int(interval(1, 5))", "int", 1, 5, False, 1),
    ("tag(int, interval(1, 5))", "int", 1, 5, False, 1),
    ("tag(log, int, interval(1, 1024))", "int", 1, 1024, True, 1),
    ("tag(int, log, interval(1, 1024))", "int", 1, 1024, True, 1),
    ("tag(log, int(interval(2, 64)))", "int", 2, 64, True, 1),
    ("int(tag(log, interval(2, 64)))", "int", 2, 64, True, 1),
    ("float(int(interval(2, 64)))", "float", 2.0, 64.0, False, None),
    ("range(5)", "int", 0, 4, False, 1),
    ("range(1, 5)", "int", 1, 4, False, 1),
    ("range(1,10,2)", "int", 1, 9, False, 2),
    ("range(1, 9, 2)", "int", 1, 7, False, 2),
    ("range(5, 1, -1)", "int", 2, 5, False, 1),
    ("range(start=1, stop=3)", "int", 1, 2, False, 1),
    ("range(3, 4)", "int", 3, 3, False, 1),
    ("shuffle(range(1, 5))", "int", 1, 4, False, 1),
    ("sort(range(5, 1, -1))", "int", 2, 5, False, 1),
    ("range(0, 1, 0.25)", "float", 0.0, 0.75, False, 0.25),
    ("range(0, 0.3, 0.1)", "float", 0.0, 0.2, False, 0.1),
    ("range(0.1, 0.75, 0.2)", "float", 0.1, 0.7, False, 0.2),
    ("float(range(1, 5))", "float", 1.0, 4.0, False, 1.0),
    ("tag(float, range(1, 5))", "float", 1.0, 4.0, False, 1.0),
    ("tag(log, range(1, 101))", "int", 1, 100, True, 1),
    ({"interval": [1e-4, 1e-1], "log": True}, "float", 1e-4, 1e-1, True, None),
    ({"interval": [0, 1]}, "float", 0.0, 1.0, False, None),
    ({"interval": [0, 1], "step": 0.3}, "float", 0.0, 0.9, False, 0.3),
    ({"interval": [1, 6], "int": True}, "int", 1, 6, False, 1),
    ({"interval": [1, 64], "int": True, "log": True}, "int", 1, 64, True, 1),
    ({"range": [1, 5], "step": 1}, "int", 1, 4, False, 1),
    ({"range": [1, 9, 2]}, "int", 1, 7, False, 2),
    ({"range": [0, 1], "step": 0.5}, "float", 0.0, 0.5, False, 0.5),
    ({"space": "tag(log, interval(1, 2))"}, "float", 1.0, 2.0, True, None),
    ({"type": "float", "low": 0, "high": 1}, "float", 0.0, 1.0, False, None),
    ({"type": "float", "low": 0.1, "high": 1, "log": True}, "float", 0.1, 1.0, True, None),
    ({"type": "float", "low": 0, "high": 1, "step": 0.25}, "float", 0.0, 1.0, False, 0.25),
    ({"type": "int", "low": 1, "high": 5}, "int", 1, 5, False, 1),
    ({"type": "int", "low": 4, "high": 16, "step": 4, "log": False}, "int", 4, 16, False, 4),
    ({"type": "int", "low": 1, "high": 128, "log": True}, "int", 1, 128, True, 1),
]
CHOICES = [
    ("choice(32, 64, 128)", [32, 64, 128]),
    ("32,64,128", [32, 64, 128]),
    ("relu, gelu", ["relu", "gelu"]),
    ("choice(relu)", ["relu"]),
    ("choice('a b', \"c,d\")", ["a b", "c,d"]),
    ("choice(0.1, 1e-3)", [0.1, 1e-3]),
    ("choice(true, false)", [True, False]),
    ("null,relu", [None, "relu"]),
    ("choice([256], [128, 64])", [[256], [128, 64]]),
    ("[256],[128,64]", [[256], [128, 64]]),
    ("choice([], [[1, 2], [3]])", [[], [[1, 2], [3]]]),
    ("choice(['a', b], [c])", [["a", "b"], ["c"]]),
    ("choice({a: 1, b: [x]}, {a: 2})", [{"a": 1, "b": ["x"]}, {"a": 2}]),
    ("choice(1, one, [1], true_)", [1, "one", [1], "true_"]),
    ("sort(3, 1, 2)", [1, 2, 3]),
    ("shuffle(3, 1, 2)", [3, 1, 2]),
    ("int(1.0, 2.0)", [1, 2]),
    ("str(choice(1, 2))", ["1", "2"]),
    ("choice(16-mixed, bf16-true)", ["16-mixed", "bf16-true"]),
    ({"choices": [1, 2]}, [1, 2]),
    ({"choices": [None, "a", [1], {"k": 1}]}, [None, "a", [1], {"k": 1}]),
    ({"space": "choice(a, b)"}, ["a", "b"]),
    ({"type": "categorical", "choices": ["a", "b"]}, ["a", "b"]),
]


def _read(written: object) -> Dimension:
    space, fixed = Space.from_sources({"model.x": written}, None, [])
    assert fixed == []
    return space["model.x"]


@pytest.mark.parametrize(("written", "kind", "low", "high", "log", "step"), NUMBERS, ids=str)
def test_numbers(written, kind, low, high, log, step):
    dim = _read(written)
    assert (dim.kind, dim.low, dim.high, dim.log, dim.step) == (kind, low, high, log, step)
    expected = int if kind == "int" else float
    assert all(type(value) is expected for value in (dim.low, dim.high))
    assert dim.choices is None
    assert dim.contains(low)
    assert dim.contains(high)
    assert not dim.contains(high + 1)


@pytest.mark.parametrize(("written", "expected"), CHOICES, ids=str)
def test_choices(written, expected):
    dim = _read(written)
    assert dim.kind == "categorical"
    assert list(dim.choices) == expected
    assert [type(choice) for choice in dim.choices] == [type(choice) for choice in expected]
    assert [dim.decode(dim.encode(choice)) for choice in expected] == expected
    assert all(
        isinstance(code, (str, int, float, bool, type(None))) for code in dim.encoded_choices()
    )


@pytest.mark.parametrize("written", [case[0] for case in NUMBERS + CHOICES], ids=str)
def test_text_means_the_same_dimension(written):
    dim = _read(written)
    assert build_dimension(parse_value(dim.name, dim.text)) == dim


@pytest.mark.parametrize(
    "written", [case[0] for case in NUMBERS + CHOICES if isinstance(case[0], str)]
)
def test_the_command_line_means_the_same(written):
    space, fixed = Space.from_sources({}, None, [f"model.x={written}"])
    assert fixed == []
    assert space["model.x"] == _read(written)


@pytest.mark.parametrize("written", [case[0] for case in NUMBERS + CHOICES], ids=str)
def test_the_distribution_is_what_trials_register(written):
    import optuna

    dim = _read(written)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    value = dim.suggest(trial)
    assert dim.contains(value)
    assert trial.distributions["model.x"] == dim.distribution()


BAD = [
    "interval(5, 1)",
    "interval(1, 1)",
    "interval(1)",
    "interval(1, 2, 3)",
    "interval(nan, 1)",
    "interval(0, inf)",
    "interval(a, b)",
    "interval(1, 5",
    "interval 1, 5)",
    "tag(log, interval(0, 1))",
    "tag(log, interval(-1, 1))",
    "tag(lg, interval(1, 2))",
    "tag(int, float, interval(1, 2))",
    "tag(int, interval(1.5, 3))",
    "tag(log, 1)",
    "tag(log, choice(1, 2))",
    "tag(log)",
    "int(interval(3, 3))",
    "range(5, 1)",
    "range(1, 1)",
    "range(1, 5, 0)",
    "range(1, 5, -1)",
    "range()",
    "range(0, nan)",
    "tag(log, range(0, 5))",
    "tag(log, range(1, 9, 2))",
    "tag(log, range(0.1, 1, 0.1))",
    "tag(int, range(0, 1, 0.5))",
    "choice()",
    "choice(1, 1)",
    "choice(1, 1.0)",
    "choice(1, true)",
    "choice([1], [1])",
    "choice([1], '[1]')",
    "choice(nan, 1)",
    "choice(null, 1)",
    "choice(choice(1, 2))",
    "a,a",
    "glob(*)",
    "uniform(0, 1)",
    "0.3",
    "relu",
    "",
    "str(interval(1, 2))",
    5,
    True,
    [1, 2],
    [],
    {},
    {"interval": [1, 0]},
    {"interval": [0]},
    {"interval": 5},
    {"interval": [0, 1], "choices": [1]},
    {"interval": [0, 1], "steps": 1},
    {"interval": [0, 1], "log": "yes"},
    {"interval": [1, 2], "log": True, "step": 0.1},
    {"interval": [0, 1], "step": 0},
    {"interval": [0, 1], "step": -0.5},
    {"interval": ["0", 1]},
    {"interval": [False, True]},
    {"interval": [0.5, 3], "int": True},
    {"interval": [1, 9], "int": True, "step": 0.5},
    {"range": [1, 5, 1], "step": 1},
    {"range": [1]},
    {"range": [1, 5], "step": 0},
    {"choices": []},
    {"choices": 3},
    {"choices": [math.inf]},
    {"choices": [{1: 2}]},
    {"choices": ["a", "a"]},
    {"space": 3},
    {"space": "interval(1, 0)"},
    {"space": "choice(1, 2)", "log": True},
    {"type": "loguniform", "low": 1, "high": 2},
    {"type": "float", "low": 1},
    {"type": "float", "low": 2, "high": 1},
    {"type": "int", "low": 0, "high": 4, "log": True},
    {"type": "categorical", "choices": ["a"], "low": 1},
    {"type": "categorical", "low": 1},
    {"low": 1, "high": 2},
    {"choices": [1, 2], "when": {}},
    {"choices": [1, 2], "when": "model"},
    {"choices": [1, 2], "when": {"model": []}},
    {"choices": [1, 2], "when": {"modell": "mlp"}},
    {"choices": [1, 2], "when": {"model.x": 1}},
]


@pytest.mark.parametrize("written", BAD, ids=str)
def test_what_is_wrong_is_refused_in_one_line_that_names_the_key(written):
    with pytest.raises(ConfigError) as refused:
        Space.from_sources({"model.x": written}, None, [])
    assert refused.value.key == "model.x"
    assert str(refused.value).startswith("model.x: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "written", [bad for bad in BAD if isinstance(bad, str) and bad not in ("0.3", "relu", "")]
)
def test_the_command_line_refuses_the_same(written):
    with pytest.raises(ConfigError) as refused:
        Space.from_sources({}, None, [f"model.x={written}"])
    assert refused.value.key == "model.x"
    assert "\n" not in str(refused.value)


def test_the_same_space_has_one_text_and_one_digest():
    a, _ = Space.from_sources(
        {"optimizer": {"lr": "tag(log,interval(1e-4,1e-1))"}, "x": "1,2"}, None, []
    )
    b, _ = Space.from_sources(
        {"x": {"choices": [1, 2]}}, {"optimizer.lr": "tag(log, interval(0.0001, 0.1))"}, []
    )
    c, _ = Space.from_sources(
        {"x": {"choices": [1, 3]}}, {"optimizer.lr": "tag(log, interval(0.0001, 0.1))"}, []
    )
    assert a.digest() == b.digest() != c.digest()
    assert a["optimizer.lr"].text == "tag(log, interval(0.0001, 0.1))"


def test_values_are_contained_by_type_and_step():
    dim = _read("range(0, 1, 0.1)")
    assert dim.contains(0.3)
    assert dim.contains(0.1 + 0.2)
    assert not dim.contains(0.35)
    assert not dim.contains(True)
    assert not dim.contains(math.nan)
    assert not _read("range(0, 9)").contains(2.0)
    assert _read("interval(0, 9)").contains(2)
    assert not _read("choice(1, 2)").contains(True)
    assert not _read("choice(true, false)").contains(1)
    assert _read("choice(0.5, 1.0)").encode(1) == 1.0
    assert _read("range(0, 0.4, 0.1)").values() == [0.0, 0.1, 0.2, 0.3]
