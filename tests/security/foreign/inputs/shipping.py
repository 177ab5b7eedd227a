"""MLflow's database and journals: what ``sync`` reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.security.foreign.audit import RAN
from tests.security.foreign.box import SECRET, Box
from tests.security.foreign.inputs.base import MKDIR, SHELL, Input, product
from tests.security.foreign.inputs.configs import ESCAPE, ESCAPED_TEXT, LAMBDA
from tests.security.foreign.inputs.payloads import torch_pickled
from tests.security.foreign.inputs.stores import put, sets

JOURNAL = "t00000/journal.a1.jsonl"


def _artifact(
    file: str, to: str = "", before: Callable[[Box], Any] = lambda box: None
) -> Callable[[Box], None]:
    def make(box: Box) -> None:
        before(box)
        box.unship()
        row = {"row": "artifact", "file": file.replace("ABS", str(box.root)), "to": to}
        box.add_rows(box.study / JOURNAL, row)

    return make


def _not_shipped(box: Box, outcome: Any) -> None:
    """Nothing of the outside has come into the store, where MLflow keeps artifacts."""
    for path in (box.store / "artifacts").rglob("*"):
        assert (
            path.is_symlink() or not path.is_file() or SECRET.encode() not in path.read_bytes()
        ), path


def _link(name: str, target: str) -> Callable[[Box], None]:
    return lambda box: box.link(box.study / name, box.root / target)


_FILES: dict[str, tuple[Any, ...]] = {
    "absolutely": ("ABS/outside/secret.txt",),
    "upwards": ("../../../../../outside/secret.txt",),
    "through a link": ("t.txt", "", _link("t00000/t.txt", "outside/secret.txt")),
    "through a folder that is a link": ("t/secret.txt", "", _link("t00000/t", "outside")),
    "a folder that is a link": ("t", "", _link("t00000/t", "outside")),
    "a folder with a link": ("f", "", _link("t00000/f/t.txt", "outside/secret.txt")),
    "the home": ("ABS/home/.ssh/authorized_keys",),
    "the working folder": ("../../../../private.txt",),
    "the machine": ("/etc/passwd",),
    "the process": ("/proc/self/environ",),
}
_TARGETS = {
    "upwards": "../../../../../../outside",
    "far upwards": "../" * 12 + "home/.ssh",
    "absolutely": "/proc/dlsearch-x",
    "upwards in the middle": "a/../../../../../../../outside",
    "as a URL": "file:///proc/dlsearch-x",
    "encoded": "%2e%2e/%2e%2e/x",
}


def _placed(statement: str, box: Box) -> str:
    """A statement with this sandbox's places."""
    return statement.replace("ABS", str(box.root)).replace("STORE", str(box.store))


def _located(*statements: str) -> Callable[[Box], None]:
    def make(box: Box) -> None:
        box.unship()
        box.add_rows(box.study / JOURNAL, {"row": "artifact", "file": "config.yaml", "to": ""})
        box.sql("mlflow.db", *(_placed(each, box) for each in statements))

    return make


def _half_shipped(*statements: str) -> Callable[[Box], None]:
    """The run is in MLflow's database already, with what it says; only an artifact is missing."""

    def make(box: Box) -> None:
        (box.study / "t00000/authorized_keys").write_text("ssh-ed25519 AAAA\n")
        (box.study / "t00000/.bashrc").write_text(SHELL)
        box.add_rows(
            box.study / JOURNAL,
            *(
                {"row": "artifact", "file": name, "to": ""}
                for name in ("authorized_keys", ".bashrc")
            ),
        )
        box.sql("mlflow.db", *(_placed(each, box) for each in statements))

    return make


_EXPERIMENTS = {
    "in the home": "file://ABS/home",
    "outside": "file://ABS/outside",
    "outside, as a path": "ABS/outside",
    "upwards": "file://STORE/../../outside",
    "of another user": "file://ABS/outside/../home/.ssh",
    "encoded": "file://STORE/%2e%2e/%2e%2e/outside",
}
_RUNS = {
    "in the home": "file://ABS/home/.ssh",
    "outside": "file://ABS/outside",
    "as a path": "ABS/outside/folder",
    "relative": "../outside",
}
_REMOTE = {
    "a web server": "http://127.0.0.1:9/x",
    "a bucket": "s3://foreign/x",
    "a plugin": "foreign+plugin://x",
    "another machine": "sftp://127.0.0.1/x",
}
_WHEN = (
    " where experiment_id = (select experiment_id from experiments where name like 'dlsearch/%')"
)

locations = product(
    (
        Input(
            f"an experiment's artifacts {where}",
            8,
            "MLflow database",
            ("sync",),
            _located(
                f"update experiments set artifact_location = '{uri}'",
                "delete from runs"
                if where == "upwards"
                else f"update runs set artifact_uri = '{uri}/' || run_uuid",
            ),
        )
        for where, uri in _EXPERIMENTS.items()
    ),
    (
        Input(
            f"a run's artifacts {where}",
            8,
            "MLflow database",
            ("sync",),
            _half_shipped(f"update runs set artifact_uri = '{uri}'"),
        )
        for where, uri in _RUNS.items()
    ),
    (
        Input(
            f"artifacts at {where}",
            8,
            "MLflow database",
            ("sync",),
            _half_shipped(f"update runs set artifact_uri = '{uri}'"),
        )
        for where, uri in _REMOTE.items()
    ),
    [
        Input(
            "artifacts below a link",
            8,
            "MLflow database",
            ("sync",),
            lambda box: (_half_shipped()(box), box.link(box.store / "artifacts", box.outside)),
        ),
        Input(
            "artifacts of one run below a link",
            8,
            "MLflow database",
            ("sync",),
            lambda box: (
                _half_shipped()(box),
                [
                    box.link(each, box.outside / "folder")
                    for each in (box.store / "artifacts").iterdir()
                ],
            ),
        ),
        Input(
            "artifacts that are links",
            8,
            "MLflow database",
            ("sync",),
            lambda box: (
                _half_shipped()(box),
                [
                    box.link(each / "artifacts/.bashrc", box.home / ".bashrc")
                    for each in (box.store / "artifacts").iterdir()
                ],
            ),
            harmless=True,  # MLflow replaces them
        ),
    ],
)

artifacts = product(
    (
        Input(
            f"an artifact read {where}",
            8,
            "journal",
            ("sync",),
            _artifact(*given),
            check=_not_shipped,
        )
        for where, given in _FILES.items()
    ),
    (
        Input(
            f"an artifact written {where}",
            8,
            "journal",
            ("sync",),
            _artifact("config.yaml", to),
            harmless=where in ("as a URL", "encoded"),  # names like others
        )
        for where, to in _TARGETS.items()
    ),
    [
        Input(
            "an artifact read upwards, of one study",
            8,
            "journal",
            ("sync", "good"),
            _artifact("../../../../../outside/secret.txt"),
            check=_not_shipped,
        ),
        Input(
            "an artifact read upwards, for worker",
            8,
            "journal",
            ("worker", "study=good"),
            _artifact("../../../../../outside/secret.txt"),
            check=_not_shipped,
            harmless=True,
            slow=True,
        ),
        Input(
            "a journal that is a link",
            8,
            "journal",
            ("sync",),
            lambda box: (box.unship(), box.link(box.study / JOURNAL, box.outside / "secret.txt")),
        ),
        Input(
            "a journal in a folder that is a link",
            8,
            "journal",
            ("sync",),
            lambda box: (
                box.unship(),
                __import__("shutil").copytree(box.study / "t00000", box.outside / "t"),
                box.link(box.study / "t00000", box.outside / "t"),
            ),
        ),
        Input(
            "a note of what was shipped that is a link",
            8,
            "journal",
            ("sync",),
            lambda box: (
                box.unship(),
                box.link(box.study / f"{JOURNAL}.shipped", box.outside / "victim.txt"),
            ),
        ),
        Input(
            "a destination that is a link",
            8,
            "journal",
            ("sync",),
            lambda box: (
                box.unship(),
                box.link(box.study / "tracking.json", box.outside / "secret.txt"),
            ),
            harmless=True,
        ),
        Input(
            "a parent outside",
            8,
            "journal",
            ("sync",),
            lambda box: (
                box.unship(),
                _edit_rows(
                    box,
                    lambda row: (
                        {**row, "parent": "../../outside/secret.txt"}
                        if row["row"] == "open"
                        else row
                    ),
                ),
            ),
        ),
        Input(
            "a destination outside",
            8,
            "study store",
            ("sync",),
            lambda box: (
                box.unship(),
                box.write(
                    "mlruns/studies/good/tracking.json",
                    f'{{"uri": "sqlite:///{box.outside}/x.db", "credentials": false}}',
                ),
            ),
        ),
        Input(
            "a destination in a folder outside",
            8,
            "study store",
            ("sync",),
            lambda box: (
                box.unship(),
                box.write(
                    "mlruns/studies/good/tracking.json",
                    f'{{"uri": "file://{box.outside}", "credentials": false}}',
                ),
            ),
        ),
        Input(
            "a destination of another kind",
            8,
            "study store",
            ("sync",),
            lambda box: (
                box.unship(),
                box.write(
                    "mlruns/studies/good/tracking.json",
                    '{"uri": "foreign+plugin://x", "credentials": false}',
                ),
            ),
        ),
        Input(
            "a destination with options of the database",
            8,
            "study store",
            ("sync",),
            lambda box: (
                box.unship(),
                box.write(
                    "mlruns/studies/good/tracking.json",
                    f'{{"uri": "sqlite:///file:{box.outside}/x.db?uri=true&mode=rwc", "credentials": false}}',
                ),
            ),
        ),
    ],
)


def _edit_rows(box: Box, change: Callable[[Any], Any]) -> None:
    import json

    path = box.study / JOURNAL
    path.write_text(
        "".join(
            json.dumps(change(json.loads(line))) + "\n" for line in path.read_text().splitlines()
        )
    )


# -- 5: shipping builds nothing ---------------------------------------------------------------------------------------
def _model(
    change: Callable[[Any], Any] | None = None, checkpoint: bytes | None = None, **row: str
) -> Callable[[Box], None]:
    def make(box: Box) -> None:
        box.write_module()
        box.unship()
        if change is not None:
            box.edit_yaml(box.study / "t00000/config.yaml", change)
        if checkpoint is not None:
            from dlsearch.core.files.checksum import seal

            path = box.study / "t00000/ckpt/best.ckpt"
            path.unlink()
            path.write_bytes(checkpoint)
            seal(path)
        given = {
            "checkpoint": "ckpt/best.ckpt",
            "config": "config.yaml",
            "name": "winner",
            "metrics": {},
            **row,
        }
        box.add_rows(box.study / JOURNAL, {"row": "model", **given})

    return make


def _admit(node: Any) -> Any:
    put(node, "allow_targets", ["foreign_module"])
    return put(
        node, "task", {"_target_": "foreign_module.Net", "in_features": 64, "out_features": 10}
    )


builds = product(
    (
        Input(
            f"a model whose config {what}",
            5,
            "journal",
            ("sync",),
            _model(change),
            harmless=True,
            says="0 pending",
        )
        for what, change in {
            "admits a module": _admit,
            "was escaped": sets("model.activation", ESCAPED_TEXT),
            "has a callback that was escaped": sets(
                "callbacks.x", {"_target_": LAMBDA, "on_fit_start": ESCAPED_TEXT}
            ),
            "is a function": sets("task", MKDIR),
            "is a private function": sets(
                "task",
                {
                    "_target_": "torch.nn.attention._fa4.register_flash_attention_fa4",
                    "module_path": "foreign_module",
                },
            ),
            "reads data": sets("data", MKDIR),
            "is as it should be": lambda node: node,
        }.items()
    ),
    [
        Input(
            "a model whose checkpoint is a pickle",
            5,
            "journal",
            ("sync",),
            _model(checkpoint=torch_pickled()),
            harmless=True,
            says="0 pending",
        ),
        Input(
            "a model whose config is outside",
            8,
            "journal",
            ("sync",),
            _model(config="../../../../../outside/weights.yaml"),
        ),
        Input(
            "a model whose checkpoint is outside",
            8,
            "journal",
            ("sync",),
            _model(checkpoint=None, name="x")
            if False
            else (
                lambda box: (
                    box.unship(),
                    box.add_rows(
                        box.study / JOURNAL,
                        {
                            "row": "model",
                            "checkpoint": "../../../../../outside/folder/best.ckpt",
                            "config": "config.yaml",
                            "name": "w",
                            "metrics": {},
                        },
                    ),
                )
            ),
        ),
        Input(
            "a model with a name upwards",
            8,
            "journal",
            ("sync",),
            _model(name="../../../outside/x"),
            harmless=True,
            says="0 pending",
        ),
        Input(
            "a model whose config admits a module, for one study",
            5,
            "journal",
            ("sync", "good"),
            _model(_admit),
            harmless=True,
            says="0 pending",
        ),
        Input(
            "a model whose config admits a module, for worker",
            5,
            "journal",
            ("worker", "study=good"),
            _model(_admit),
            harmless=True,
            slow=True,
        ),
    ],
)


# -- 12: rows that are none -------------------------------------------------------------------------------------------
def _rows(*rows: Any) -> Callable[[Box], None]:
    return lambda box: (box.unship(), box.add_rows(box.study / JOURNAL, *rows))  # type: ignore[return-value]


rows = product(
    (
        Input(f"a row {what}", 12, "journal", ("sync",), make, harmless=True)
        for what, make in {
            "of an unknown kind": _rows({"row": "exec", "code": RAN}),
            "with escape codes": _rows(
                {"row": "tags", "values": {"mlflow.note": ESCAPE, ESCAPE: ESCAPE}}
            ),
            "with a name upwards": _rows(
                {"row": "params", "values": {"../../../outside/ran": "x"}}
            ),
            "with a long value and a name upwards": _rows(
                {"row": "params", "values": {"../../../../outside/ran": "x" * 20_000}}
            ),
            "of ten megabytes": _rows({"row": "tags", "values": {"x": "y" * 10_000_000}}),
            "nested deeply": lambda box: (
                box.unship(),
                (box.study / JOURNAL).write_text(
                    (box.study / JOURNAL).read_text()
                    + '{"row": "tags", "t": 1, "values": '
                    + "[" * 200_000
                    + "]" * 200_000
                    + "}\n"
                ),
            ),
        }.items()
    ),
    [
        Input(
            "escape codes in MLflow's database",
            12,
            "MLflow database",
            ("sync",),
            lambda box: (
                box.unship(),
                box.sql(
                    "mlflow.db",
                    ("update runs set name = ?", (ESCAPE,)),
                    ("update tags set value = ?", (ESCAPE,)),
                ),
            ),
            harmless=True,
        ),
        Input(
            "MLflow's database that is none",
            12,
            "MLflow database",
            ("sync",),
            lambda box: (
                box.unship(),
                (box.store / "mlflow.db").write_bytes(torch_pickled() * 100),
            ),
        ),
        Input(
            "an experiment that never ends in MLflow's database",
            12,
            "MLflow database",
            ("sync",),
            lambda box: (
                box.unship(),
                box.sql(
                    "mlflow.db",
                    "alter table experiments rename to old_experiments",
                    "create view experiments as with recursive n(i) as (select 1 union all select i + 1 from n) "
                    "select o.* from old_experiments o, n",
                ),
            ),
        ),
    ],
)

INPUTS = product(locations, artifacts, builds, rows)
