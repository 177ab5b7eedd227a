"""Wrong input: exit code 2, one line that names the key, and nothing left behind."""

from __future__ import annotations

import sqlite3
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

from dlsearch.cli.main import main
from dlsearch.core.errors import ConfigError
from tests.kinds import first_of_each_kind

SEARCH = [
    # what is typed after -m, and the key that the line must name
    (["optimizer.lrr=0.1"], "optimizer.lrr"),
    (["modell=lenet"], "modell"),
    (["nonsense"], "nonsense"),
    (["study.n_trails=3"], "study.n_trails"),
    (["model=resnet9000"], "model"),
    (["data=imagenet22k"], "data"),
    (["sampler=gradient_descent"], "sampler"),
    (["pruner=scissors"], "pruner"),
    (["experiment=unknown"], "experiment"),
    (["study.n_trials=many"], "study.n_trials"),
    (["study.n_trials=0"], "study.n_trials"),
    (["study.n_trials=-3"], "study.n_trials"),
    (["study.n_trials=2.5"], "study.n_trials"),
    (["study.confirm.top=0"], "study.confirm.top"),
    (["study.confirm.seeds=0"], "study.confirm.seeds"),
    (["study.confirm.seeds=1000"], "study.confirm.seeds"),
    (["study.confirm.racing=perhaps"], "study.confirm.racing"),
    (["study.confirm.sedes=3"], "study.confirm.sedes"),
    (["study.confirm=perhaps"], "study.confirm"),
    (["study.confirm=null"], "study.confirm"),
    (["study.confirm.refit=true", "scheduler=plateau"], "study.confirm.refit"),
    (["seed=abc"], "seed"),
    (["trainer.max_epochs=ten"], "trainer.max_epochs"),
    (["trainer.max_epochs=0"], "trainer.max_epochs"),
    (["trainer.max_epoch=3"], "trainer.max_epoch"),
    (["study.timeout=soon"], "study.timeout"),
    (["study.timeout=0s"], "study.timeout"),
    (["study.trial_timeout=5 parsecs"], "study.trial_timeout"),
    (["study.direction=up"], "study.direction"),
    (["study.objective=test/accuracy"], "study.objective"),
    (["study.objective=[]"], "study.objective"),
    (["study.target=nan"], "study.target"),
    (["study.name=../../etc"], "study.name"),
    (["study.name=a/b"], "study.name"),
    (["study.name='" + "x" * 10_000 + "'"], "study.name"),
    (["worker.lease_s=0.1"], "worker.lease_s"),
    (["optimizer.lr=interval(0.1,0.1)"], "optimizer.lr"),
    (["optimizer.lr=interval(1,0.1)"], "optimizer.lr"),
    (["optimizer.lr=tag(log, interval(0, 1))"], "optimizer.lr"),
    (["optimizer.lr=tag(log, interval(-1, 1))"], "optimizer.lr"),
    (["optimizer.lr=choice()"], "optimizer.lr"),
    (["optimizer.lr=interval(a,b)"], "optimizer.lr"),
    (["model.no_such=interval(0,1)"], "model.no_such"),
    (["model=mlp,unheard_of"], "model"),
    (["study.n_trials=3,4"], "study.n_trials"),
    (["seed=1,2"], "seed"),
    (["paths.store=a,b"], "paths"),
    (["study.enqueue=[{optimizer.lr: 5}]"], "study.enqueue[0].optimizer.lr"),
    (["study.enqueue=[{optimizer.nope: 5}]"], "study.enqueue[0].optimizer.nope"),
    (["study.enqueue=nowhere.json"], "study.enqueue"),
    (["study.enqueue=[1,2]"], "study.enqueue"),
    (["hydra.launcher.workers=0"], "hydra.launcher.workers"),
    (["hydra.launcher.workers=lots"], "hydra.launcher.workers"),
    (["worker.slots_per_gpu=many"], "worker.slots_per_gpu"),
    (["hydra/launcher=cloud"], "hydra/launcher"),
    (["study.storage=mysql://u:secret@h/d"], "study.storage"),
    (["task=null"], "config"),
    (["data._target_=os.system"], "data._target_"),
    (["optimizer._target_=torch.hub.load"], "optimizer._target_"),
    (["task._target_=subprocess.Popen"], "task._target_"),
    (["allow_targets=[os]"], "allow_targets"),
    (
        [
            "study.objective=[val/accuracy,val/loss]",
            "study.direction=[maximize,minimize]",
            "pruner=median",
        ],
        "pruner",
    ),
    (["sampler=grid"], ""),
    (["study.compare=model"], "study.compare"),
    (["study.compare=optimizer.lr"], "study.compare"),
    (["model=mlp", "study.compare=model.dropout", "model.dropout=choice(0.1)"], "study.compare"),
    (["model=mlp,lenet", "study.compare=model", "sampler=qmc"], "study.compare"),
    (["model=mlp,lenet", "study.compare=model", "study.target=0.9"], "study.target"),
    (["transfer=features"], "transfer.weights"),
    (["transfer.weights=lenet"], "transfer.weights"),
    (["transfer.weights=study:nothing"], "transfer.weights"),
    (["transfer.weights=file:nowhere.pt"], "transfer.weights"),
    (["task.test_time.crops=7"], "crops"),
    (["optimizer.lr=0.1", "optimizer.lr=0.2,0.3"], "optimizer.lr"),
]
TRAIN = [
    (["optimizer.lr=fast"], "optimizer"),
    (["study.direction=sideways"], "study.direction"),
    (["name=a/b"], "study.name"),
    (["optimizer.lr=0.1,0.2"], "optimizer.lr"),
    (["model=nothing"], "model"),
    (["data._target_=builtins.eval"], "data._target_"),
]
VERBS = [
    (["status"], "name"),
    (["status", "nothing"], "nothing"),
    (["trials", "nothing"], "nothing"),
    (["report", "nothing"], "nothing"),
    (["worker"], "study"),
    (["worker", "study=nothing"], "nothing"),
    (["ui"], "paths.store"),
    (["plan", "-m", "optimizer.lrr=1"], "optimizer.lrr"),
    (["plan", "-m", "--config-dir", "nowhere"], "--config-dir"),
    (["describe", "model=nothing"], "model"),
    (["look", "nothing"], "nothing"),
    (["look", "model=nothing"], "model"),
    (["look", "nothing", "missing.png"], "missing.png"),
    (["lr-range", "--low", "1", "--high", "0.1"], "--low"),
    (["lr-range", "--steps", "3"], "--steps"),
    (["lr-range", "model=nothing"], "model"),
    (["statsu", "x"], "statsu"),
    (["ensemble", "nothing"], "nothing"),
    (["ensemble", "nothing", "--top", "1"], "--top"),
    (["ensemble", "nothing", "--by", "votes"], "--by"),
    (["status", "x", "--jsn"], "--jsn"),
]


def run(argv, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dlsearch", *argv])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as end:
        main()
    GlobalHydra.instance().clear()
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("DLSEARCH_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DLSEARCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(argv, key, nowhere, capsys, monkeypatch):
    code, out, err = run(argv, capsys, monkeypatch)
    assert code == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith("dlsearch: ")
    assert key in err
    assert len(err) < 600
    assert out == ""
    assert list(nowhere.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "key"),
    first_of_each_kind(SEARCH, lambda case: case[1].partition(".")[0]),
    ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else "",
)
def test_a_search_refuses(argv, key, nowhere, capsys, monkeypatch):
    check(["-m", *argv], key, nowhere, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("argv", "key"), TRAIN, ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else ""
)
def test_a_training_refuses(argv, key, nowhere, capsys, monkeypatch):
    check(argv, key, nowhere, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("argv", "key"), VERBS, ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else ""
)
def test_a_verb_refuses(argv, key, nowhere, capsys, monkeypatch):
    check(argv, key, nowhere, capsys, monkeypatch)


def test_secrets_do_not_appear_in_complaints(nowhere, capsys, monkeypatch):
    _, _, err = run(["-m", "study.storage=mysql://user:hunter2@host/db"], capsys, monkeypatch)
    assert "hunter2" not in err


def test_an_unwritable_store_is_refused(nowhere, capsys, monkeypatch):
    (nowhere / "file").write_text("in the way")
    code, _, err = run(["-m", f"paths.store={nowhere}/file/store"], capsys, monkeypatch)
    assert (code, err.count("\n")) == (2, 1)
    assert "paths.store" in err


def test_mlflow_s_database_is_refused_as_storage(nowhere, capsys, monkeypatch):
    with sqlite3.connect(nowhere / "mlflow.db") as connection:
        connection.executescript(
            "CREATE TABLE experiments (i); CREATE TABLE runs (i); CREATE TABLE alembic_version (v);"
        )
    connection.close()
    before = (nowhere / "mlflow.db").read_bytes()
    code, _, err = run(["-m", f"study.storage=sqlite:///{nowhere}/mlflow.db"], capsys, monkeypatch)
    assert code == 2
    assert "study.storage" in err
    assert (nowhere / "mlflow.db").read_bytes() == before
    assert [path.name for path in nowhere.iterdir()] == ["mlflow.db"]


def test_missing_data_are_named_and_leave_nothing(nowhere, monkeypatch):
    from torchvision import datasets

    from dlsearch.config.compose import compose_config
    from dlsearch.execution.trial_main import check_built

    def unreachable(url, *_, **__):
        raise OSError(f"no network: {url}")

    monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", unreachable)
    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", unreachable)
    for data, name in (
        ("mnist", "MNIST"),
        ("fashion_mnist", "FashionMNIST"),
        ("cifar10", "CIFAR10"),
    ):
        with pytest.raises(
            ConfigError, match=rf"^data: root: {name} is neither in .* nor could it be downloaded"
        ):
            check_built(
                compose_config([f"data={data}", "model=lenet"]), ["val/accuracy"], ["maximize"]
            )
    assert list(nowhere.iterdir()) == []
