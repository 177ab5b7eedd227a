"""Optuna's own suites of tests, of what we build in place of Optuna's parts or around them.

Samplers are run on studies in memory, as in Optuna's own tests. ``make test`` runs the suites of
storages on SQLite and of samplers on our TPE and our grid; ``make test-storms`` all others, on
PostgreSQL too.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, HyperbandPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, QMCSampler, RandomSampler, TPESampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from dlsearch.sampling.fast_tpe.sampler import Tpe, quicker
from dlsearch.sampling.known_space import GridSampler, KnownSpace
from dlsearch.sampling.pruners import Hyperband, SuccessiveHalving
from dlsearch.space.space import Space
from dlsearch.storage import schema
from dlsearch.storage.database import Storage
from dlsearch.storage.optuna_cache import TrialCache
from tests.storage.server import Server

_databases = itertools.count()


def url_of(where: str, request: pytest.FixtureRequest) -> str:
    if where == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path')}/study.db"
    server: Server = request.getfixturevalue("postgres")
    return server.database(f"suite{next(_databases)}")


class TestTrialCache(StorageTestCase):
    @pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.storm)])
    def storage(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[TrialCache]:
        made = []
        open_tables = schema.open_tables

        @functools.wraps(open_tables)
        def noted(url: str) -> optuna.storages.RDBStorage:  # also when one is unpickled
            made.append(open_tables(url))
            return made[-1]

        monkeypatch.setattr(schema, "open_tables", noted)
        opened = Storage(url_of(request.param, request))
        assert type(opened.optuna) is TrialCache
        yield opened.optuna
        opened.close()
        for rdb in made:
            rdb.remove_session()
            rdb.engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.storm)])
def _studies_in_our_storage(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Whatever study a test creates lies there."""
    opened = Storage(url_of(request.param, request))
    create = functools.partial(optuna.create_study, storage=opened.optuna)
    monkeypatch.setattr(optuna.study, "create_study", create)
    monkeypatch.setattr(optuna, "create_study", create)
    yield
    opened.close()


def tpe(**options: Any) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = quicker(TPESampler(seed=3, n_startup_trials=0, **options))
    assert type(sampler) is Tpe
    return sampler


def known(inner: Callable[[], BaseSampler]) -> Callable[[], BaseSampler]:
    def make() -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return KnownSpace(inner(), lambda inferred: inferred)

    return make


TPES = {
    "grouped": functools.partial(tpe, multivariate=True, group=True),
    "together": tpe,
    "independent": functools.partial(tpe, multivariate=False),
    "no liars": functools.partial(tpe, multivariate=True, group=True, constant_liar=False),
}
OTHERWISE = ("independent", "together", "no liars")
CMAES = known(lambda: CmaEsSampler(seed=3, n_startup_trials=0, warn_independent_sampling=False))
QMC = known(
    lambda: QMCSampler(seed=3, warn_asynchronous_seeding=False, warn_independent_sampling=False)
)
RANDOM = known(lambda: RandomSampler(seed=3))


@pytest.mark.storm
@pytest.mark.parametrize("sampler", [TPES["grouped"]], ids=["grouped"])
class TestTpe(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    pass


@pytest.mark.storm
@pytest.mark.parametrize("sampler", [TPES[name] for name in OTHERWISE], ids=OTHERWISE)
class TestTpeOtherwise(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    pass


@pytest.mark.storm
@pytest.mark.usefixtures("_studies_in_our_storage")
@pytest.mark.parametrize("sampler", [TPES["grouped"]], ids=["grouped"])
class TestTpeInOurStorage(BasicSamplerTestCase):
    pass


@pytest.mark.storm
@pytest.mark.parametrize("sampler", [TPES["together"]], ids=["together"])
class TestTpeTogether(RelativeSamplerTestCase):
    pass


@pytest.mark.storm
@pytest.mark.parametrize("sampler", [CMAES, QMC, RANDOM], ids=["cmaes", "qmc", "random"])
class TestKnownSpace(BasicSamplerTestCase):
    pass


@pytest.mark.storm
@pytest.mark.parametrize("sampler", [CMAES], ids=["cmaes"])
class TestKnownSpaceOfNumbers(SingleOnlySamplerTestCase):
    pass


class TestGrid(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        space = Space.from_sources({"a": "choice(1, 2)", "b": "range(5)"}, None, [])[0]
        return lambda: GridSampler(space, seed=3)


# Optuna's wheel has no suite for pruners: ours are held against Optuna's own, which count from
# epoch 1.
def verdicts(
    pruner: BasePruner, storage: optuna.storages.BaseStorage, *, first_epoch: int
) -> list[list[bool]]:
    """What a pruner says of 40 trials that run three at a time, after each of up to 12 epochs."""
    study = optuna.create_study(
        study_name="pruned", storage=storage, pruner=pruner, direction="maximize"
    )
    rng = random.Random(5)
    said: list[list[bool]] = []
    running: list[optuna.Trial] = []
    while len(said) < 40 or running:
        while len(running) < 3 and len(said) < 40:
            running.append(study.ask())
            said.append([])
        trial = rng.choice(running)
        mine = said[trial.number]
        trial.report(rng.choice([rng.random(), 0.5, math.nan]), len(mine) + first_epoch)
        mine.append(trial.should_prune())
        if mine[-1] or len(mine) == 12:
            study.tell(
                trial,
                None if mine[-1] else rng.random(),
                state=None if not mine[-1] else TrialState.PRUNED,
            )
            running.remove(trial)
    return said


PRUNERS = [
    (SuccessiveHalving, SuccessiveHalvingPruner, {"min_resource": 1, "reduction_factor": 2}),
    (
        SuccessiveHalving,
        SuccessiveHalvingPruner,
        {"min_resource": 2, "reduction_factor": 3, "bootstrap_count": 2},
    ),
    (Hyperband, HyperbandPruner, {"min_resource": 1, "max_resource": 12, "reduction_factor": 3}),
    (
        Hyperband,
        HyperbandPruner,
        {"min_resource": 2, "max_resource": "auto", "reduction_factor": 2},
    ),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "options", "backend"),
    [
        *((*pruner, "memory") for pruner in PRUNERS),
        (*PRUNERS[2], "sqlite"),
        *(pytest.param(*pruner, "postgresql", marks=pytest.mark.storm) for pruner in PRUNERS),
    ],
)
def test_our_pruners_decide_as_optunas_an_epoch_earlier(
    ours: type[BasePruner],
    theirs: type[BasePruner],
    options: dict[str, Any],
    backend: str,
    request: pytest.FixtureRequest,
) -> None:
    wanted = verdicts(theirs(**options), optuna.storages.InMemoryStorage(), first_epoch=1)
    if backend == "memory":
        found = verdicts(ours(**options), optuna.storages.InMemoryStorage(), first_epoch=0)
    else:
        opened = Storage(url_of(backend, request))
        found = verdicts(ours(**options), opened.optuna, first_epoch=0)
        opened.close()
    assert found == wanted
    assert any(any(each) for each in found)
    assert any(len(each) == 12 for each in found)
