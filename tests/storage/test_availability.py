"""Outages of a real PostgreSQL: recognised, waited out, and nothing is done twice."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import time
import uuid

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from dlsearch.cli.main import main
from dlsearch.confirmation.rounds import Rounds
from dlsearch.core.errors import AWAY, DatabaseAwayError
from dlsearch.core.machine.processes import ProcessIdentity
from dlsearch.execution.clients.database import DatabaseClient
from dlsearch.execution.outcome import Ending
from dlsearch.execution.pending_results import PendingResults
from dlsearch.planning.open_study import document_of, open_study
from dlsearch.storage import attempts, availability
from dlsearch.storage.availability import Outage, is_away, ride_out
from dlsearch.storage.database import Storage
from dlsearch.study.study import Study
from tests.storage.server import Cable
from tests.study.studies import complete, draft, holder

SPACE = ["optimizer.lr=tag(log, interval(1e-4, 1e-1))"]


@pytest.fixture(scope="module")
def database(postgres):
    return postgres.database("outage")


@pytest.fixture
def cable(postgres):
    cable = Cable(postgres.socket)
    yield cable
    cable.close()


def opened(url, name, n_trials=4, *, lease_s=30.0, patience_s=20.0, **changes):
    given = draft(n_trials, space=SPACE, name=name, **changes)
    document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
    return open_study(Storage(url, patience_s=patience_s), given, document, lease_s=lease_s)[0]


def failure(action):
    with pytest.raises(Exception, match=r".") as error:
        action()
    return error.value


# -- how an outage is recognised -------------------------------------------------------------------
def test_what_passes_by_itself_and_what_does_not(postgres, database, cable):
    def ask(url, statement="SELECT 1"):
        engine = sa.create_engine(url)
        try:
            with engine.connect() as connection:
                connection.execute(sa.text(statement))
        finally:
            engine.dispose()

    free = Cable(postgres.socket)
    free.close()
    assert is_away(failure(lambda: ask(free.url("outage")))), "connection refused"
    assert is_away(
        failure(lambda: ask(database.replace(str(postgres.socket.parent), "/nonexistent")))
    ), "no socket"
    assert is_away(failure(lambda: ask(database, "SELECT pg_terminate_backend(pg_backend_pid())")))
    cable.cut = lambda data: "before" if b"SELECT 1" in data else ""
    assert is_away(failure(lambda: ask(cable.url("outage"))))
    assert not is_away(failure(lambda: ask(postgres.url("absent")))), "there is no such database"
    assert not is_away(failure(lambda: ask(database, "SELECT 1/0")))
    assert not is_away(failure(lambda: ask(database, "SELECT * FROM absent")))
    assert not is_away(None)
    assert not is_away(OSError("no"))


def test_transactions_that_met_another_may_do_again(database):
    engine = sa.create_engine(database, isolation_level="REPEATABLE READ")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE met (n INTEGER)"))
        connection.execute(sa.text("INSERT INTO met VALUES (0)"))

    def meet():
        with engine.begin() as first, engine.begin() as second:
            for connection in (first, second):
                connection.execute(sa.text("SELECT * FROM met"))
            first.execute(sa.text("UPDATE met SET n = n + 1"))
            first.commit()
            second.execute(sa.text("UPDATE met SET n = n + 1"))

    error = failure(meet)
    assert "could not serialize" in str(error)
    assert is_away(error)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE met"))
    engine.dispose()


def test_it_is_waited_for_with_patience_and_told_once(monkeypatch):
    monkeypatch.setattr(availability, "FIRST_S", 0.01)
    monkeypatch.setattr(availability, "CAP_S", 0.03)
    said, tried = [], []

    def away():
        tried.append(time.monotonic())
        if len(tried) < 6:
            raise ConnectionError from _Gone("the server closed the connection\nunexpectedly")
        return "there"

    assert ride_out(away, 60, said.append) == "there"
    assert said == [
        "waiting for the database: the server closed the connection",
        "the database is back after 0 s",
    ]
    assert len(tried) == 6

    def for_good():
        raise _Gone("gone")

    with pytest.raises(
        DatabaseAwayError, match=r"away for 0 s \(gone\); once it is back, the same command goes on"
    ):
        ride_out(for_good, 0.05, said.append)
    with pytest.raises(ZeroDivisionError):
        ride_out(lambda: 1 / 0, 60)


class _Gone(Exception):
    sqlstate = "08006"


def test_the_delays_grow_differ_and_are_bounded():
    found = []
    for _ in range(20):
        waiting = Outage(math.inf, lambda _: None)
        delays = []
        for _ in range(12):
            waiting.seen(_Gone("gone"))
            delays.append(waiting._next_try - time.monotonic())
        assert max(delays) <= availability.CAP_S
        assert delays[0] <= availability.FIRST_S
        assert min(delays[6:]) > availability.CAP_S * 0.4
        found.append(round(delays[-1], 3))
    assert len(set(found)) > 5


@pytest.mark.storm
def test_a_command_gives_up_with_one_line_and_its_own_code(postgres, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    free = Cable(postgres.socket)
    free.close()
    with pytest.raises(SystemExit) as end:
        main(["status", "s", f"study.storage='{free.url('outage')}'", "study.storage_patience=1s"])
    assert end.value.code == AWAY
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith("dlsearch: waiting for the database: ")
    assert "the database has been away for 1 s" in lines[1]
    assert len(lines) == 2


# -- commits whose answer was lost -----------------------------------------------------------------
class Commits:
    """Cuts the cable at the `which`-th COMMIT from now on."""

    def __init__(self, cable, which, how):
        self.seen, self.which, self.how, self.done = 0, which, how, False
        cable.cut = self

    def __call__(self, data):
        if b"COMMIT" not in data:
            return ""
        self.seen += 1
        self.done = self.done or self.seen - 1 == self.which
        return self.how if self.seen - 1 == self.which else ""


def states(study):
    trials = Study(study.storage, study.name).trials()
    return [t.state.name for t in trials], [
        (a.number, a.attempt, a.state) for a in study.leases.rows()
    ]


def claims(study, act):
    claim = act(lambda: study.claim(holder()))
    assert states(study) == (["RUNNING"], [(0, 1, "running")])
    assert study.finish(claim, complete(0.5)), "it is the claim that counts"
    return [0.5]


def reports(study, act):
    claim = study.claim(holder())
    act(lambda: study.report(claim, 0, 0.25))
    assert study.optuna.get_trials()[0].intermediate_values == {0: 0.25}
    assert study.finish(claim, complete(0.5))
    return [0.5]


def finishes(study, act):
    claim = study.claim(holder())
    assert act(lambda: study.finish(claim, complete(0.5))) is True
    assert not study.finish(claim, complete(0.75))
    return [0.5]


def releases(study, act):
    claim = study.claim(holder())
    assert act(lambda: study.release(claim)) is True
    again = study.claim(holder("w2"))
    assert study.release(claim), "to say it once more changes nothing"
    assert (again.number, again.attempt, again.params) == (0, 2, claim.params)
    assert study.finish(again, complete(0.5))
    return [0.5]


def loses(study, act):
    claim = study.claim(holder())
    assert act(lambda: study.lose(claim, "its process died")) is True
    assert study.finish(study.claim(holder()), complete(0.5))
    assert [s for _, _, s in states(study)[1]] == ["lost", "complete"]
    return [0.5]


def renews(study, act):
    claim = study.claim(holder())
    assert act(lambda: study.leases.renew([claim.token], {claim.token: {"epoch": 1}})) == {
        claim.token
    }
    assert study.finish(claim, complete(0.5))
    return [0.5]


def opens_the_ledger(study, act):
    token = uuid.uuid4().hex
    row = act(lambda: study.ledger.opened("confirm", None, 1, token))
    act(lambda: study.ledger.scored(row, {"round": 1}))
    assert [(each["id"], json.loads(each["document"])) for each in study.ledger.rows()] == [
        (row, {"round": 1})
    ]
    return []


def confirms(study, act):
    study.finish(study.claim(holder()), complete(0.5))
    rounds = Rounds(study)
    claim = act(lambda: rounds.claim(holder()))
    found = study.leases.rows(kind="confirm")
    assert [(a.attempt, a.state, a.token) for a in found] == [(1, "running", claim.token)]
    with study.storage.begin() as connection:
        assert (
            connection.execute(
                sa.text("SELECT count(*) FROM dlsearch_round WHERE study=:s"), {"s": study.name}
            ).scalar()
            == 1
        )
    return [0.5]


WORK = [claims, reports, finishes, releases, loses, renews, opens_the_ledger, confirms]


@pytest.mark.storm
# A commit that never arrived is like any lost connection: two kinds of work are enough.
@pytest.mark.parametrize(
    ("work", "how"),
    [*((work, "after") for work in WORK), (claims, "before"), (finishes, "before")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_commit_that_nobody_heard_of_is_made_once(database, cable, work, how, monkeypatch):
    """The connection ends at the first COMMIT of the work, at the second, and so on to the last."""
    monkeypatch.setattr(availability, "FIRST_S", 0.02)
    which, name = 0, f"{work.__name__}-{how}"
    while True:
        opened(database, f"{name}-{which}", 1).storage.close()
        study = Study(Storage(cable.url("outage"), patience_s=20), f"{name}-{which}")
        cuts = []

        def act(action, study=study, cuts=cuts, which=which):
            cuts.append(Commits(cable, which, how))
            try:
                return study.storage.surely(action)
            finally:
                cable.cut = lambda _: ""

        values = work(study, act)
        assert [
            t.values[0] for t in study.optuna.get_trials(states=[TrialState.COMPLETE])
        ] == values
        assert not [a for a in study.leases.rows(kind="trial") if a.state == "running"]
        study.storage.close()
        if not any(cut.done for cut in cuts):
            break
        which += 1
    assert which >= 1, "there was a commit to cut"


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_study_is_opened_once_and_extended_once(database, cable, how, monkeypatch):
    monkeypatch.setattr(availability, "FIRST_S", 0.02)
    Storage(database).close()
    storage = Storage(cable.url("outage"), patience_s=20)
    for which in range(4):
        name = f"opening-{how}-{which}"
        default = {"optimizer.lr": 0.001}
        given = draft(4, space=SPACE, name=name, default=default, enqueue=[{"optimizer.lr": 0.01}])
        for resumed in (False, True):
            document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
            Commits(cable, which, how)
            study, existed = open_study(storage, given, document, lease_s=30.0)
            cable.cut = lambda _: ""
            assert existed is resumed
            assert len(json.loads(study.row().document).get("sessions", [])) == int(resumed)
        trials = study.trials()
        assert [(t.number, t.state.name, t.user_attrs) for t in trials] == [
            (0, "WAITING", {"default": True}), (1, "WAITING", {"enqueued": True}),
        ]  # fmt: skip
    storage.close()


# -- a holder that the database could not hear is not taken for dead -------------------------------
@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(attempts, "HOLD_S", 1.0)
    monkeypatch.setattr(attempts, "GAP_S", 0.5)


def test_after_an_outage_holders_have_the_time_of_a_lease(database, cable, quick):
    study = opened(cable.url("outage"), "outage-of-all", 2, lease_s=1.0)
    alive, dead = study.claim(holder("alive")), study.claim(holder("dead"))
    study.leases.renew([alive.token, dead.token], {})
    assert not study.leases.overdue()
    cable.pull()
    time.sleep(1.5)
    with pytest.raises(Exception, match=r"."):
        study.leases.overdue()
    cable.plug()
    back = time.monotonic()
    assert study.reap() == [], "both leases have run out, and no holder was heard"
    newcomer = Study(Storage(database), "outage-of-all", lease_s=1.0)
    assert newcomer.reap() == []
    assert newcomer.claim(holder("new")) is None
    lost = []
    while not lost:
        assert time.monotonic() < back + 30
        study.leases.renew([alive.token], {})
        if study.leases.overdue():
            lost = study.reap()
        time.sleep(0.05)
    assert [a.worker for a in lost] == ["dead"]
    assert time.monotonic() >= back + 1.0
    assert study.finish(alive, complete(0.5))
    again = newcomer.claim(holder("new"))
    assert (again.number, again.attempt) == (1, 2)
    for each in (study, newcomer):
        each.storage.close()


def test_after_a_pause_of_its_own_a_reaper_waits(database, quick):
    study = opened(database, "paused", 1, lease_s=1.0)
    study.claim(holder("w1"))
    until = time.monotonic() + 1.5
    while time.monotonic() < until:  # in touch for longer than a lease
        study.leases.overdue()
        time.sleep(0.05)
    assert study.leases.overdue()
    time.sleep(0.7)  # stopped, say, or waiting for a lock, with all the others
    assert not study.leases.overdue()
    assert study.reap() == []
    study.storage.close()


def test_the_dead_of_this_machine_and_those_who_gave_up_are_reaped_at_once(database):
    study = opened(database, "long-gone", 2, patience_s=100.0)
    study.claim(holder("elsewhere"))
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    identity = ProcessIdentity.of(process.pid)
    process.kill()
    process.join()
    here = study.claim(attempts.Holder("here", "host", process.pid, 0, "cpu:0", identity))
    with study.storage.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE dlsearch_attempt SET lease_until = lease_until - 60 WHERE study='long-gone'"
            )
        )
    other = Study(Storage(database, patience_s=100.0), "long-gone")
    assert [a.token for a in other.reap()] == [here.token], (
        "a minute of silence: the other may be waiting elsewhere"
    )
    with study.storage.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE dlsearch_attempt SET lease_until = lease_until - 120"
                " WHERE study='long-gone'"
            )
        )
    assert [a.worker for a in other.reap()] == ["elsewhere"]
    for each in (study, other):
        each.storage.close()


# -- what a worker held ----------------------------------------------------------------------------
def test_what_was_kept_is_written_by_the_next_and_only_while_it_counts(database, tmp_path):
    study = opened(database, "kept", 3)
    ended, given_back, lost = (study.claim(holder(f"w{n}")) for n in range(3))
    PendingResults(tmp_path, study.name).keep(ended, Ending("complete", result=complete(0.5)))
    PendingResults(tmp_path, study.name).keep(given_back, Ending("interrupted", "interrupted"))
    PendingResults(tmp_path, study.name).keep(lost, Ending("complete", result=complete(0.75)))
    path = tmp_path / "studies/kept/unwritten" / f"{ended.token}.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"unreported": [[0, 0.25], [1, 0.5]]})
    )
    assert [a.number for a in study.reap("w2")] == [lost.number]
    for _ in range(2):
        PendingResults(tmp_path, study.name).write_kept(DatabaseClient(study))
    assert not list((tmp_path / "studies/kept/unwritten").iterdir())
    trials = Study(study.storage, "kept").trials()
    assert [t.state.name for t in trials] == ["COMPLETE", "WAITING", "WAITING"]
    assert trials[0].intermediate_values == {0: 0.25, 1: 0.5}
    assert [(a.state, a.reason) for a in study.leases.rows()] == [
        ("complete", None), ("interrupted", "interrupted"), ("lost", "lost"),
    ]  # fmt: skip
    study.storage.close()


# -- many at once ----------------------------------------------------------------------------------
def _start(url, barrier, queue):
    with contextlib.redirect_stderr(None):
        barrier.wait()
        try:
            study = opened(url, "first", 4)
            queue.put((None, study.document["uuid"]))
            study.storage.close()
        except BaseException as error:
            queue.put((repr(error), None))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.storm
def test_eight_first_starts_make_one_schema_and_one_study(kind, postgres, tmp_path):
    url = (
        f"sqlite:///{tmp_path / 'new' / 'dlsearch.db'}"
        if kind == "sqlite"
        else postgres.database("first-starts")
    )
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_start, args=(url, barrier, queue)) for _ in range(8)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(10)
    queue.close()
    queue.join_thread()
    assert [error for error, _ in found if error] == []
    assert len({uuid for _, uuid in found}) == 1
    storage = Storage(url)
    with storage.begin() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM studies")).scalar() == 1
        sessions = json.loads(
            connection.execute(sa.text("SELECT document FROM dlsearch_study")).scalar_one()
        )["sessions"]
    assert len(sessions) == 7, "one made it, seven resumed it"
    storage.close()
