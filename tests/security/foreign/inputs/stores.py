"""Stores of somebody else's: folders, configs, links, checkpoints, and the study's database."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.security.foreign.audit import RAN
from tests.security.foreign.box import SECRET, Box
from tests.security.foreign.inputs.base import MKDIR, OUT, SHELL, SYMPIFY, TINY, Input, product
from tests.security.foreign.inputs.configs import ALIASES, ESCAPE, ESCAPED, ESCAPED_TEXT, LAMBDA
from tests.security.foreign.inputs.payloads import pickled, torch_pickled

PREDICT = ("predict", "good/0", "digit.npy")
EXPORT = ("export", "good/0", "--out", "out/x")
LOOK = ("look", "good/0", "--out", "out/x")
ENSEMBLE = ("ensemble", "good", "--top", "2", "--validation")
VERIFY = ("verify", "good/0", "--anyway")
REPRODUCE = ("reproduce", "record/report.json", "--store", "out/again", "--anyway")
USES = (PREDICT, EXPORT, LOOK)
RESUME = (
    "-m",
    "model=mlp",
    "data=digits",
    "study.name=good",
    "study.n_trials=3",
    *TINY,
)


def config(change: Callable[[Any], Any]) -> Callable[[Box], None]:
    """Changes the config beside the checkpoint of trial 0."""

    def make(box: Box) -> None:
        box.write_module()
        for folder in ("t00000", "confirm/r1-t00000-s0"):
            box.edit_yaml(box.study / folder / "config.yaml", change)

    return make


def document(change: Callable[[Any], Any]) -> Callable[[Box], None]:
    """Changes the study's document in the database."""

    def make(box: Box) -> None:
        box.write_module()
        box.edit_document(change)

    return make


def record(change: Callable[[Any], Any]) -> Callable[[Box], None]:
    """Changes the report.json that came as a record."""

    def make(box: Box) -> None:
        box.write_module()
        box.edit_json(box.work / "record/report.json", change)

    return make


def put(node: Any, key: str, value: Any) -> Any:
    """Set ``a.b.c`` of a document."""
    *folders, last = key.split(".")
    at = node
    for name in folders:
        at = (
            at.setdefault(name, {})
            if at.get(name) is not None
            else at.__setitem__(name, {}) or at[name]
        )
    at[last] = value
    return node


def sets(key: str, value: Any) -> Callable[[Any], Any]:
    """A change that sets one key."""
    return lambda node: put(node, key, value)


# -- 1, 2, 3: what configs that are recorded name ---------------------------------------------------------------------
_NODES: dict[str, tuple[int, str, Any]] = {
    "an argument that was escaped": (1, "model.activation", ESCAPED),
    "a text that was escaped": (1, "model.activation", ESCAPED_TEXT),
    "a target in an argument": (3, "model.activation", SYMPIFY),
    "a private target": (
        3,
        "model",
        {
            "_target_": "torchvision.models._api.WeightsEnum.get_state_dict",
            "_args_": ["file:foreign/evil.pkl"],
        },
    ),
    "a function": (3, "model", MKDIR),
}
_ADMITS = {"_target_": "foreign_module.Net", "in_features": 64, "out_features": 10}


def _admit(prefix: str = "") -> Callable[[Any], Any]:
    def change(node: Any) -> Any:
        put(node, f"{prefix}allow_targets", ["foreign_module"])
        put(node, f"{prefix}model", _ADMITS)
        if "allow_targets" in node:
            node["allow_targets"] = ["foreign_module"]
        return node

    return change


def _writable(words: tuple[str, ...]) -> tuple[str, ...]:
    return OUT if "--out" in words or "--store" in words else ()


configs = product(
    (
        Input(
            f"config.yaml with {what}",
            kind,
            "study store",
            words,
            config(sets(key, value)),
            writable=_writable(words),
        )
        for what, (kind, key, value) in _NODES.items()
        for words in USES
    ),
    (
        Input(
            "config.yaml that admits a module",
            2,
            "study store",
            words,
            config(_admit()),
            writable=_writable(words),
        )
        for words in USES
    ),
    (
        Input(
            f"document with {what}",
            kind,
            "study database",
            words,
            document(sets(f"config.{key}", value)),
        )
        for what, (kind, key, value) in _NODES.items()
        for words in (VERIFY,)
    ),
    (
        Input(
            "document that admits a module", 2, "study database", words, document(_admit("config."))
        )
        for words in (VERIFY,)
    ),
    (
        Input(
            f"record with {what}",
            kind,
            "record",
            REPRODUCE,
            record(sets(f"study.config.{key}", value)),
            writable=OUT,
        )
        for what, (kind, key, value) in _NODES.items()
    ),
    [
        *(
            Input(
                f"{thing} that names a module beside it and admits none",
                2,
                thing,
                words,
                change(sets(f"{prefix}model", _ADMITS)),
                writable=_writable(words),
            )
            for thing, words, change, prefix in (
                ("study store", PREDICT, config, ""),
                ("study database", VERIFY, document, "config."),
                ("record", REPRODUCE, record, "study.config."),
            )
        ),
        *(
            Input(
                f"{thing} that names a module beside it as an option and admits none",
                2,
                thing,
                words,
                change(sets(f"{prefix}options", {"model": {"x": _ADMITS}})),
                says="allow_targets=[foreign_module]",
                writable=_writable(words),
            )
            for thing, words, change, prefix in (
                ("study database", VERIFY, document, ""),
                ("record", REPRODUCE, record, "study."),
            )
        ),
        Input(
            "record that admits a module",
            2,
            "record",
            REPRODUCE,
            record(_admit("study.config.")),
            writable=OUT,
        ),
        Input(
            "record with a sampler beside it",
            2,
            "record",
            REPRODUCE,
            record(sets("study.sampler", {"_target_": "foreign_module.Net"})),
            writable=OUT,
        ),
        Input(
            "record with a callback that was escaped",
            1,
            "record",
            REPRODUCE,
            record(
                sets("study.config.callbacks.x", {"_target_": LAMBDA, "on_fit_start": ESCAPED_TEXT})
            ),
            writable=OUT,
        ),
        Input(
            "record with a space of a function",
            2,
            "record",
            REPRODUCE,
            record(
                sets(
                    "study.space",
                    {"function": "foreign_module.space", "_function_": "foreign_module.space"},
                )
            ),
            writable=OUT,
        ),
        Input(
            "document with a callback that was escaped",
            1,
            "study database",
            VERIFY,
            document(
                sets("config.callbacks.x", {"_target_": LAMBDA, "on_fit_start": ESCAPED_TEXT})
            ),
        ),
        Input(
            "document with an optimizer that was escaped",
            1,
            "study database",
            VERIFY,
            document(sets("config.optimizer.betas", [0.9, ESCAPED])),
        ),
        Input(
            "config.yaml whose model resolves to a function",
            3,
            "study store",
            PREDICT,
            config(lambda node: {**put(node, "model", "${evil}"), "evil": MKDIR}),
        ),
        Input(
            "config.yaml with a Python object",
            3,
            "study store",
            PREDICT,
            lambda box: (box.study / "t00000/config.yaml").write_text(
                f"task: !!python/object/apply:os.system ['{SHELL}']\n"
            ),
        ),
        Input(
            "config.yaml that reads the environment",
            11,
            "study store",
            PREDICT,
            config(sets("model.activation", "${oc.env:OPENAI_KEY}")),
            environment=(("OPENAI_KEY", "zq7-Xw81+kk/PPq2"),),
            check=lambda box, outcome: _not_in("zq7-Xw81", outcome),
        ),
    ],
    (
        Input(
            f"document whose pruner is {what}",
            3,
            "study database",
            words,
            lambda box, node=node: (
                box.write("foreign/evil.pkl", pickled()),
                document(sets("pruner", node))(box),
            ),
        )
        for (what, node), words in zip(
            (
                ("a function", MKDIR),
                ("a text's evaluation", SYMPIFY),
                ("a module beside it", {"_target_": "foreign_module.Net"}),
                (
                    "escaped",
                    {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": ESCAPED},
                ),
                ("private", {"_target_": "optuna.pruners._nop.NopPruner"}),
                (
                    "a command",
                    {"_target_": "subprocess.Popen", "args": ["touch", "../outside/ran"]},
                ),
            ),
            (
                ("status", "good"),
                ("trials", "good"),
                ("report", "good"),
                ("gc", "good"),
                PREDICT,
                ENSEMBLE,
            ),
            strict=True,
        )
    ),
    (
        Input(
            f"document whose pruner is {what}, for compare",
            3,
            "study database",
            ("compare", "good", "other"),
            document(sets("pruner", node)),
        )
        for what, node in (("a function", MKDIR), ("a text's evaluation", SYMPIFY))
    ),
    [
        Input(
            "document whose sampler is a function, for a worker",
            3,
            "study database",
            ("worker", "study=good"),
            lambda box: (document(sets("sampler", MKDIR))(box), _open(box)),
            slow=True,
        ),
        Input(
            "document whose sampler is a module beside it, for a search",
            2,
            "study database",
            RESUME,
            document(
                lambda node: {
                    **node,
                    "sampler": {"_target_": "foreign_module.Net"},
                    "allow_targets": ["foreign_module"],
                }
            ),
            harmless=True,  # the command names another
            slow=True,
        ),
        Input(
            "config.yaml that ensemble builds",
            1,
            "study database",
            ENSEMBLE,
            document(sets("config.model.activation", ESCAPED_TEXT)),
        ),
        Input(
            "document whose callbacks a worker would build",
            1,
            "study database",
            ("worker", "study=good", "worker.slots=1"),
            lambda box: (
                document(sets("config.callbacks.x", {"_target_": LAMBDA, "setup": ESCAPED_TEXT}))(
                    box
                ),
                _open(box),
            ),
            slow=True,
        ),
    ],
)


def _open(box: Box, n_trials: int = 3) -> None:
    """The study is not over: a worker has something to do."""
    box.sql(
        "dlsearch.db",
        f"update dlsearch_study set n_trials = {n_trials}, finished = 0",
        "delete from dlsearch_round",
    )


def _not_in(text: str, outcome: Any) -> None:
    assert text not in outcome.out + outcome.err


# -- 6: pickles in the database --------------------------------------------------------------------------------------
def _cma(*keys: str, table: str = "trial") -> Callable[[Box], None]:
    def make(box: Box) -> None:
        _open(box, 4)
        box.edit_document(
            sets("sampler", {"_target_": "optuna.samplers.CmaEsSampler", "n_startup_trials": 1})
        )
        text = json.dumps(pickled().hex())
        for key in keys:
            for row in (1, 2) if table == "trial" else (1,):
                box.sql(
                    "dlsearch.db",
                    (
                        f"insert into {table}_system_attributes ({table}_id, key, value_json) values (?, ?, ?)",
                        (row, key, text),
                    ),
                )
        if table == "trial":
            box.sql(
                "dlsearch.db",
                *(
                    (
                        "insert into trial_system_attributes (trial_id, key, value_json) values (?, ?, ?)",
                        (row, f"{name}:generation", "0"),
                    )
                    for row in (1, 2)
                    for name in ("cma", "cma:0", "cma:1")
                ),
            )

    return make


_WORKER = ("worker", "study=good", "worker.slots=1", "tracking.enabled=false")
pickles = product(
    (
        Input(
            f"a pickle as {keys[0]} of {'the study' if table == 'study' else 'trials'}",
            6,
            "study database",
            _WORKER,
            _cma(*keys, table=table),
            # the others' state is not this sampler's
            harmless=(table, keys[0]) != ("trial", "cma:optimizer:0"),
            slow=True,
        )
        for table in ("trial", "study")
        for keys in (
            ("cma:optimizer:0",),
            ("cma:0:optimizer:0",),
            ("cmawm:optimizer:0",),
            ("sepcma:optimizer:0",),
        )
    ),
    [
        Input(
            "a pickle as cma:optimizer, for a search",
            6,
            "study database",
            (*RESUME, "sampler=cmaes", "study.allow_drift=true"),
            _cma(
                "cma:optimizer:0",
            ),
            slow=True,
        ),
        Input(
            "a pickle as cma:optimizer, for status",
            6,
            "study database",
            ("status", "good"),
            _cma("cma:optimizer:0"),
            harmless=True,
            says="good",
        ),
        Input(
            "a pickle as cma:optimizer, for trials",
            6,
            "study database",
            ("trials", "good"),
            _cma("cma:optimizer:0"),
            harmless=True,
            says="complete",
        ),
        Input(
            "a pickle as cma:optimizer, for report",
            6,
            "study database",
            ("report", "good"),
            _cma("cma:optimizer:0"),
            harmless=True,
            says="report: ",
        ),
    ],
)

# -- 8: names out of the database ------------------------------------------------------------------------------------
_NAMES = ("../../outside/x", "../../../home", "BOX/outside/x", "..", "a/../../../outside")
_OF_A_STUDY: tuple[tuple[str, ...], ...] = (
    ("report", "{}"),
    ("gc", "{}"),
    ("predict", "{}/0", "digit.npy"),
    ("export", "{}/0", "--out", "out/x"),
    ("look", "{}/0"),
    ("compare", "{}", "good"),
    ("ensemble", "{}", "--top", "2"),
    ("status", "{}"),
    ("trials", "{}"),
    ("verify", "{}/0"),
    ("worker", "study={}"),
)


def _renamed(name: str) -> Callable[[Box], None]:
    def make(box: Box) -> None:
        real = name.replace("BOX", str(box.root))
        box.rename_study(real)
        target = box.store / "studies" / real
        if target.resolve().is_relative_to(box.outside):  # what the name leads to is there
            shutil.copytree(box.study, target, dirs_exist_ok=True)

    return make


names = product(
    (
        Input(
            f"a study named {_NAMES[0]}, for {words[0]}",
            8,
            "study database",
            tuple(w.format(_NAMES[0]) for w in words),
            _renamed(_NAMES[0]),
            writable=_writable(words),
        )
        for words in _OF_A_STUDY
    ),
    (
        Input(
            f"a study named {name!r}, for {verb}", 8, "study database", (verb, name), _renamed(name)
        )
        for name in _NAMES[1:5]
        for verb in ("report", "gc")
    ),
    [
        Input(
            "gc of all studies, one named out of the store",
            8,
            "study database",
            ("gc",),
            _renamed(_NAMES[0]),
        ),
        Input(
            "gc of all studies, a dry run",
            8,
            "study database",
            ("gc", "--dry-run"),
            _renamed(_NAMES[0]),
        ),
        Input(
            "a record named out of the store",
            8,
            "record",
            REPRODUCE,
            record(sets("study.name", "../../outside/x")),
            writable=OUT,
        ),
        Input(
            "a record with an absolute name",
            8,
            "record",
            REPRODUCE,
            lambda box: record(sets("study.name", f"{box.outside}/x"))(box),
            writable=OUT,
        ),
        Input(
            "a record with a name of two lines",
            8,
            "record",
            REPRODUCE,
            record(sets("study.name", "a\nb")),
            writable=OUT,
        ),
        *(
            Input(
                f"a record {what}",
                8,
                "record",
                REPRODUCE,
                record(sets(key, value)),
                harmless=True,
                writable=OUT,
                slow=True,
                says="trials bit-equal",
            )
            for what, key, value in (
                ("with a data folder outside", "study.config.paths.cache", "../../outside/folder"),
                ("that enqueues a file", "study.config.study.enqueue", "../outside/weights.yaml"),
            )
        ),
        Input(
            "transfer from a study named upwards",
            8,
            "study database",
            (
                "transfer.weights=study:../../outside/x",
                "trainer.max_epochs=1",
                "tracking.enabled=false",
            ),
            _renamed(_NAMES[0]),
        ),
    ],
    (
        Input(
            f"a kept checkpoint at {where}, for {words[0]}",
            8,
            "study database",
            words,
            lambda box, where=where: _kept(box, where),
            writable=_writable(words),
        )
        for words, where in (
            (("predict", "good", "digit.npy"), "../outside/folder/ckpt/best.ckpt"),
            (("export", "good", "--out", "out/x"), "/ABS/outside/folder/ckpt/best.ckpt"),
            (
                ("look", "good", "--out", "out/x"),
                "studies/good/../../../../outside/folder/ckpt/best.ckpt",
            ),
            (("predict", "good", "digit.npy"), "studies/good/t00000/ckpt/link.ckpt"),
        )
    ),
)


def _kept(box: Box, where: str) -> None:
    """The document of the confirmation says where the kept checkpoint lies; a good one lies there."""
    where = where.replace("/ABS", str(box.root))
    good = box.study / "confirm/r1-t00000-s0"
    (box.outside / "folder/ckpt").mkdir()
    shutil.copy(good / "ckpt/best.ckpt", box.outside / "folder/ckpt/best.ckpt")
    shutil.copy(good / "config.yaml", box.outside / "folder/config.yaml")
    if where.endswith("link.ckpt"):
        box.link(good / "ckpt/best.ckpt", box.outside / "folder/ckpt/best.ckpt")
        return
    box.edit_document(
        lambda node: put(node, "choice", {**(node.get("choice") or {}), "checkpoint": where}),
        "dlsearch_round",
    )
    # Where the place follows from numbers alone, the folder itself leads there.
    box.link(good / "ckpt", box.outside / "folder/ckpt")


# -- 8: links in the store -------------------------------------------------------------------------------------------
def _linked(name: str, target: str) -> Callable[[Box], None]:
    def make(box: Box) -> None:
        path, to = box.store / name, box.root / target
        if path.exists() and not to.exists():
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(path, to) if path.is_dir() else shutil.copy(path, to)
        box.link(path, to)

    return make


_CKPT = "studies/good/t00000/ckpt"
links = product(
    (
        Input(
            f"{name} is a link, which report replaces",
            8,
            "study store",
            ("report", "good"),
            _linked(name, target),
            harmless=True,
            says="report: ",
        )
        for name, target in (
            ("studies/good/report/report.json", "outside/victim.txt"),
            ("studies/good/report/index.html", "home/.bashrc"),
            ("studies/good/report/figures", "outside/folder"),
        )
    ),
    (
        Input(
            f"{name} is a link, for {words[0]}",
            8,
            thing,
            words,
            _linked(name, target),
            writable=_writable(words),
            slow=slow,
        )
        for name, target, thing, words, slow in (
            (_CKPT, "outside/ckpt", "study store", ("gc", "good", "--top-k", "1"), False),
            (
                "studies/good/t00001/ckpt",
                "outside/folder",
                "study store",
                ("gc", "good", "--top-k", "1"),
                False,
            ),
            (
                "studies/good/t00001",
                "outside/t",
                "study store",
                ("gc", "good", "--top-k", "1"),
                False,
            ),
            ("studies/good", "outside/s", "study store", ("gc", "good", "--top-k", "1"), False),
            ("studies", "outside/ss", "study store", ("gc", "--top-k", "1"), False),
            ("studies/good/report", "outside/folder", "study store", ("report", "good"), False),
            ("studies/good", "outside/s", "study store", ("report", "good"), False),
            (f"{_CKPT}/best.ckpt", "outside/best.ckpt", "checkpoint", PREDICT, False),
            (f"{_CKPT}/best.ckpt", "outside/secret.txt", "checkpoint", EXPORT, False),
            (
                "studies/good/t00000/config.yaml",
                "outside/weights.yaml",
                "study store",
                PREDICT,
                False,
            ),
            ("studies/good/t00000/config.yaml", "outside/secret.txt", "study store", LOOK, False),
            ("studies/good/t00000", "outside/t", "study store", EXPORT, False),
            (
                "studies/good/ensemble",
                "outside/folder",
                "study store",
                ("ensemble", "good", "--top", "2"),
                True,
            ),
            ("studies/good/looks", "outside/folder", "study store", ("look", "good/0"), False),
            (
                "studies/good/t00000/look",
                "outside/folder",
                "study store",
                ("look", "good/0"),
                False,
            ),
            ("dlsearch.db", "outside/d.db", "study database", ("studies",), False),
            ("dlsearch.db", "outside/d.db", "study database", ("status", "good"), False),
            ("dlsearch.db", "outside/d.db", "study database", ("gc", "good"), False),
            ("dlsearch.db", "outside/secret.txt", "study database", ("trials", "good"), False),
            ("dlsearch.db", "outside/d.db", "study database", ("ui",), False),
            ("mlflow.db", "outside/m.db", "MLflow database", ("sync",), False),
            ("mlflow.db", "outside/m.db", "MLflow database", ("ui",), False),
            ("shipper.log", "outside/victim.txt", "journal", ("sync",), False),
            ("shipper.lock", "outside/victim.txt", "journal", ("sync",), False),
            ("dlsearch.db.lock", "outside/victim.txt", "study store", ("gc", "good"), False),
            (
                "cache",
                "outside/folder",
                "study store",
                ("model.width=8", "trainer.max_epochs=1", "tracking.enabled=false"),
                False,
            ),
            (
                "runs",
                "outside/folder",
                "study store",
                ("model.width=8", "trainer.max_epochs=1", "tracking.enabled=false"),
                False,
            ),
            ("studies/good/t00002", "outside/folder", "study store", RESUME, True),
            ("studies/good/config.yaml", "outside/victim.txt", "study store", RESUME, True),
            (
                "weights",
                "outside/folder",
                "study store",
                (
                    "transfer.weights=study:good",
                    "model.width=8",
                    "model.depth=1",
                    "trainer.max_epochs=1",
                    "tracking.enabled=false",
                ),
                False,
            ),
        )
    ),
)


# -- 8: what a worker keeps -------------------------------------------------------------------------------------------
def _unwritten(journal: str, link: str | None = None, **end: Any) -> Callable[[Box], None]:
    """The end of an attempt that a worker could not write to the database."""

    def make(box: Box) -> None:
        token = "0123456789abcdef0123456789abcdef"
        _open(box)
        box.sql(
            "dlsearch.db",
            f"update dlsearch_attempt set token = '{token}', state = 'running', result = null where number = 1",
        )
        folder = box.study / "unwritten"
        folder.mkdir()
        if link is not None:
            box.link(box.store / journal, box.root / link)
        where = journal.replace("ABS", str(box.root))
        document = {
            "claim": {"kind": "trial", "number": 1, "attempt": 1, "token": token},
            "end": {
                "state": "failed",
                "reason": "crash",
                "error": f"\n{SHELL}\n",
                "result": None,
                **end,
            },
            "ledger_row": None,
            "unreported": [],
            "journal": where,
        }
        (folder / f"{token}.json").write_text(json.dumps(document))

    return make


unwritten = product(
    (
        Input(
            f"an attempt's end with {what}, for {words[0]}",
            8,
            "journal",
            words,
            _unwritten(*given),
            harmless=True,
            slow=slow,
        )
        for what, given in {
            "a journal upwards": ("../../outside/victim.txt",),
            "an absolute journal": ("ABS/home/.bashrc",),
            "a journal that is a link": (
                "studies/good/t00001/journal.a9.jsonl",
                "outside/victim.txt",
            ),
            "a journal below a link": (
                "studies/good/t00001/ckpt/journal.jsonl",
                "home/.ssh/authorized_keys",
            ),
        }.items()
        for words, slow in ((("status", "good"), False), (_WORKER, True))
    ),
    [
        Input(
            "an attempt's end that is a link",
            8,
            "journal",
            ("status", "good"),
            lambda box: (
                (box.study / "unwritten").mkdir(),
                box.link(box.study / "unwritten/x.json", box.outside / "secret.txt"),
            ),
            harmless=True,
            check=lambda box, outcome: _not_in(SECRET, outcome),
        )
    ],
)


# -- 12: bombs and terminals in the store and the database ------------------------------------------------------------
def _escapes(*statements: str) -> Callable[[Box], None]:
    return lambda box: box.sql("dlsearch.db", *((each, (ESCAPE,)) for each in statements))


_VIEW = (
    "alter table {0} rename to old_{0}",
    "create view {0} as with recursive n(i) as (select 1 union all select i + 1 from n) select o.* from old_{0} o, n",
)


def _bombed(text: str) -> Callable[[Box], None]:
    def make(box: Box) -> None:
        for folder in ("t00000", "confirm/r1-t00000-s0"):
            path = box.study / folder / "config.yaml"
            path.write_text(path.read_text() + text)

    return make


_BOMB = (
    "bomb:\n" + "".join(f"  {line}\n" for line in ALIASES.splitlines()) + "  z: [*i, *i, *i, *i]\n"
)
bombs = product(
    (
        Input(
            "aliases in config.yaml",
            12,
            "study store",
            words,
            _bombed(_BOMB),
            writable=_writable(words),
        )
        for words in USES
    ),
    (
        Input(
            "depth in config.yaml",
            12,
            "study store",
            words,
            _bombed("deep: " + "[" * 5000 + "]" * 5000 + "\n"),
            writable=_writable(words),
        )
        for words in USES[:2]
    ),
    [
        Input(
            "five megabytes in config.yaml",
            12,
            "study store",
            PREDICT,
            _bombed("x: [" + "1," * 2_500_000 + "1]\n"),
        ),
        Input(
            "interpolations of interpolations in config.yaml",
            12,
            "study store",
            PREDICT,
            lambda box: (
                _bombed(
                    "x0: "
                    + "y" * 100
                    + "\n"
                    + "".join(f"x{i + 1}: " + f"${{x{i}}}" * 10 + "\n" for i in range(9))
                )(box),
                box.edit_yaml(box.study / "t00000/config.yaml", sets("model.activation", "${x9}")),
            ),
        ),
        Input(
            "a width of a billion in config.yaml",
            12,
            "study store",
            PREDICT,
            config(sets("model.width", 2_000_000_000)),
        ),
        Input(
            "a width of a hundred thousand in config.yaml",
            12,
            "study store",
            EXPORT,
            config(lambda node: put(put(node, "model.width", 60_000), "model.depth", 40)),
            writable=OUT,
        ),
        Input(
            "depth in report.json",
            12,
            "record",
            REPRODUCE,
            lambda box: (box.work / "record/report.json").write_text(
                '{"schema": 1, "study": ' + "[" * 200_000 + "]" * 200_000 + "}"
            ),
            writable=OUT,
        ),
        Input(
            "a number of a million digits in report.json",
            12,
            "record",
            REPRODUCE,
            lambda box: (box.work / "record/report.json").write_text(
                '{"schema": 1, "study": {"seed": ' + "9" * 1_000_000 + "}}"
            ),
            writable=OUT,
        ),
        Input(
            "no report at all in report.json",
            12,
            "record",
            REPRODUCE,
            lambda box: (box.work / "record/report.json").write_bytes(pickled()),
            writable=OUT,
        ),
        Input(
            "a billion trials in report.json",
            12,
            "record",
            REPRODUCE,
            record(lambda node: {**node, "replay": [{**node["replay"][0], "number": 10**9}]}),
            writable=OUT,
        ),
        Input(
            "escape codes in a record's name",
            12,
            "record",
            REPRODUCE,
            record(sets("study.name", f"x{ESCAPE}")),
            writable=OUT,
        ),
        Input(
            "depth in the document, for compare",
            12,
            "study database",
            ("compare", "good", "other"),
            lambda box: box.sql(
                "dlsearch.db",
                ("update dlsearch_study set document = ?", ("[" * 200_000 + "]" * 200_000,)),
            ),
        ),
        Input(
            "depth in the document",
            12,
            "study database",
            ("status", "good"),
            lambda box: box.sql(
                "dlsearch.db",
                ("update dlsearch_study set document = ?", ("[" * 200_000 + "]" * 200_000,)),
            ),
        ),
        Input(
            "no document",
            12,
            "study database",
            ("status", "good"),
            lambda box: box.sql("dlsearch.db", "update dlsearch_study set document = '[]'"),
        ),
        Input(
            "a document that is no JSON",
            12,
            "study database",
            ("trials", "good"),
            lambda box: box.sql("dlsearch.db", ("update dlsearch_study set document = ?", (RAN,))),
        ),
        Input(
            "a document of a pickle",
            12,
            "study database",
            ("report", "good"),
            lambda box: box.sql(
                "dlsearch.db", ("update dlsearch_study set document = ?", (pickled(),))
            ),
        ),
        Input(
            "a view that never ends in place of the studies",
            12,
            "study database",
            ("studies",),
            lambda box: box.sql("dlsearch.db", *(each.format("dlsearch_study") for each in _VIEW)),
        ),
        Input(
            "a view that never ends in place of the trials",
            12,
            "study database",
            ("status", "good"),
            lambda box: box.sql("dlsearch.db", *(each.format("trials") for each in _VIEW)),
        ),
        Input(
            "a view that never ends in place of the attempts",
            12,
            "study database",
            ("trials", "good"),
            lambda box: box.sql(
                "dlsearch.db", *(each.format("dlsearch_attempt") for each in _VIEW)
            ),
        ),
        Input(
            "a database that is none",
            12,
            "study database",
            ("status", "good"),
            lambda box: (box.store / "dlsearch.db").write_bytes(pickled() * 1000),
        ),
        Input(
            "a database that is a folder",
            12,
            "study database",
            ("studies",),
            lambda box: ((box.store / "dlsearch.db").unlink(), (box.store / "dlsearch.db").mkdir()),
        ),
        Input(
            "a database that is a pipe",
            12,
            "study database",
            ("studies",),
            lambda box: (
                (box.store / "dlsearch.db").unlink(),
                __import__("os").mkfifo(box.store / "dlsearch.db"),
            ),
        ),
        Input(
            "a config.yaml that is a pipe",
            12,
            "study store",
            PREDICT,
            lambda box: (
                (box.study / "t00000/config.yaml").unlink(),
                __import__("os").mkfifo(box.study / "t00000/config.yaml"),
            ),
        ),
        Input(
            "a checkpoint that is a pipe",
            12,
            "checkpoint",
            PREDICT,
            lambda box: (
                _only_checkpoint(box).unlink(),
                __import__("os").mkfifo(box.store / _CKPT / "best.ckpt"),
            ),
        ),
        Input(
            "a config.yaml that is a device",
            12,
            "study store",
            PREDICT,
            lambda box: box.link(box.study / "t00000/config.yaml", "/dev/zero"),
        ),
        Input(
            "escape codes in a study's name, for studies",
            12,
            "study database",
            ("studies",),
            lambda box: box.rename_study(f"x{ESCAPE}"),
            harmless=True,
        ),
        Input(
            "escape codes in an error, for status",
            12,
            "study database",
            ("status", "good"),
            lambda box: (
                _failed(box),
                _escapes(
                    "update dlsearch_attempt set error = ? where number = 1",
                    "update dlsearch_attempt set reason = ?",
                )(box),
            ),
            harmless=True,
        ),
        Input(
            "escape codes in a reason, for trials",
            12,
            "study database",
            ("trials", "good"),
            lambda box: (
                _failed(box),
                _escapes(
                    "insert into trial_user_attributes (trial_id, key, value_json) values (2, 'reason', json_quote(?))",
                    "update dlsearch_attempt set reason = ?",
                )(box),
            ),
            harmless=True,
        ),
        Input(
            "escape codes in a host and a device, for status",
            12,
            "study database",
            ("status", "good"),
            _escapes(
                "update dlsearch_attempt set host = ? where kind = 'trial'",
                "update dlsearch_attempt set worker = ? where kind = 'trial'",
                "update dlsearch_attempt set device = ?",
            ),
            harmless=True,
        ),
        Input(
            "escape codes in a parameter's name, for trials",
            12,
            "study database",
            ("trials", "good"),
            document(
                lambda node: {
                    **node,
                    "space": [
                        {**each, "name": f"{each['name']}{ESCAPE}"} for each in node["space"]
                    ],
                }
            ),
            harmless=True,
        ),
        Input(
            "escape codes in an objective, for studies",
            12,
            "study database",
            ("studies",),
            document(sets("objectives", [f"val/{ESCAPE}"])),
            harmless=True,
        ),
        Input(
            "escape codes in a class, for predict",
            12,
            "checkpoint",
            PREDICT,
            lambda box: _classes(box, ESCAPE),
            harmless=True,
        ),
        Input(
            "escape codes in the record's commands, for report",
            12,
            "study database",
            ("report", "good"),
            document(sets("command", f"dlsearch {ESCAPE}")),
            harmless=True,
        ),
    ],
)


def _failed(box: Box) -> None:
    """Trial 1 has failed, and there is no confirmation."""
    box.sql(
        "dlsearch.db",
        "update trials set state = 'FAIL' where number = 1",
        "delete from trial_values where trial_id = 2",
        "update dlsearch_attempt set state = 'failed', reason = 'crash', result = null where id = 2",
    )


def _classes(box: Box, text: str) -> None:
    _edit_checkpoint(
        box,
        lambda saved: saved["Digits"]["input"].update(classes=[f"{text}{i}" for i in range(10)]),
    )


def _edit_checkpoint(box: Box, change: Callable[[dict[str, Any]], Any]) -> None:
    import torch

    from dlsearch.core.files.checksum import seal

    path = _only_checkpoint(box)
    saved = torch.load(path, weights_only=True)
    change(saved)
    path.unlink()
    torch.save(saved, path)
    seal(path)


# -- checkpoints and weights -----------------------------------------------------------------------------------------
def _checkpoint(data: bytes) -> Callable[[Box], None]:
    def make(box: Box) -> None:
        path = _only_checkpoint(box)
        path.unlink()
        path.write_bytes(data)

    return make


def _only_checkpoint(box: Box) -> Path:
    """The checkpoint of a store of an earlier version, which has no file of weights beside it."""
    folder = box.store / _CKPT
    (folder / "best.safetensors").unlink(missing_ok=True)
    return folder / "best.ckpt"


def _tensors(data: bytes) -> Callable[[Box], None]:
    """Another file in the place of the weights."""

    def make(box: Box) -> None:
        path = box.store / _CKPT / "best.safetensors"
        path.unlink()
        path.write_bytes(data)

    return make


def _header(document: str) -> bytes:
    """A file of weights that has a header alone."""
    text = document.encode()
    return len(text).to_bytes(8, "little") + text


def _other_weights(box: Box) -> None:
    """Weights whose last byte is another."""
    path = box.store / _CKPT / "best.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _sealed(data: bytes) -> Callable[[Box], None]:
    def make(box: Box) -> None:
        from dlsearch.core.files.checksum import seal

        _checkpoint(data)(box)
        seal(box.store / _CKPT / "best.ckpt")

    return make


def _weights(data: bytes) -> Callable[[Box], None]:
    return lambda box: (box.work / "weights.pt").write_bytes(data)


_TRANSFER = (
    "transfer.weights=file:weights.pt",
    "model.width=8",
    "model.depth=1",
    "trainer.max_epochs=1",
    "tracking.enabled=false",
)
_HUGE = {"net.output.bias": ("zeros", (1,))}
weights = product(
    (
        Input(
            f"a checkpoint that is {what}", 6, "checkpoint", words, make, writable=_writable(words)
        )
        for (what, make), words in zip(
            (
                ("a pickle", _checkpoint(pickled())),
                ("a pickle in an archive", _checkpoint(torch_pickled())),
                ("a sealed pickle in an archive", _sealed(torch_pickled())),
                ("another sealed pickle", _sealed(torch_pickled())),
                ("a pickle, for an ensemble", _sealed(torch_pickled())),
            ),
            (PREDICT, EXPORT, LOOK, PREDICT, ENSEMBLE),
            strict=True,
        )
    ),
    (
        Input(
            f"a file of weights that is {what}",
            6,
            "weights",
            words,
            make,
            writable=_writable(words),
        )
        for (what, make), words in zip(
            (
                ("a pickle", _tensors(pickled())),
                ("a pickle in an archive", _tensors(torch_pickled())),
                ("a header without tensors", _tensors(_header("{}"))),
                (
                    "a tensor of a terabyte",
                    _tensors(
                        _header(
                            '{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}'
                        )
                    ),
                ),
                ("changed", _other_weights),
                ("changed, for an ensemble", _other_weights),
            ),
            (PREDICT, EXPORT, LOOK, PREDICT, PREDICT, ENSEMBLE),
            strict=True,
        )
    ),
    (
        Input(f"weights that are {what}", 6, "weights", _TRANSFER, _weights(data))
        for what, data in (
            ("a pickle", pickled()),
            ("a pickle in an archive", torch_pickled()),
            ("a text", RAN.encode()),
            ("nothing", b""),
        )
    ),
    [
        Input(
            "weights with a tensor of a terabyte",
            12,
            "weights",
            _TRANSFER,
            lambda box: _swollen(box.work / "weights.pt"),
        ),
        Input(
            "weights that expand",
            12,
            "weights",
            _TRANSFER,
            lambda box: _deflated(box.work / "weights.pt"),
        ),
        Input(
            "weights that are a pipe",
            12,
            "weights",
            _TRANSFER,
            lambda box: (
                (box.work / "weights.pt").unlink(),
                __import__("os").mkfifo(box.work / "weights.pt"),
            ),
        ),
        Input(
            "a checkpoint that expands",
            12,
            "checkpoint",
            PREDICT,
            lambda box: _deflated(_only_checkpoint(box)),
        ),
        Input(
            "a checkpoint with a tensor of a terabyte",
            12,
            "checkpoint",
            PREDICT,
            lambda box: _swollen(_only_checkpoint(box), sealed=True),
        ),
        Input(
            "a checkpoint whose inputs are terabytes",
            12,
            "checkpoint",
            PREDICT,
            lambda box: _edit_checkpoint(
                box, lambda saved: saved["Digits"]["input"].update(shape=[1, 400_000, 400_000])
            ),
        ),
    ],
)


def _swollen(path: Path, *, sealed: bool = False) -> None:
    """One number, seen as many: its strides are 0."""
    import torch

    from dlsearch.core.files.checksum import seal

    saved = torch.load(path, weights_only=True)
    state = saved.get("state_dict", saved)
    for name in list(state):
        if "output.weight" in name:
            state[name] = torch.zeros(1).expand(500_000, 500_000)
    path.unlink()
    torch.save(saved, path)
    if sealed:
        seal(path)


def _deflated(path: Path) -> None:
    """Its numbers are three gigabytes of zeros, compressed."""
    import zipfile

    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info.filename) for info in file.infolist()}
    path.unlink()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, data in members.items():
            if "/data/" in name and name.endswith("/0"):
                with file.open(name, "w", force_zip64=True) as member:
                    for _ in range(96):
                        member.write(bytes(1 << 25))
            else:
                file.writestr(name, data)


# -- 10: servers -----------------------------------------------------------------------------------------------------
servers = [
    Input(
        "a study's database that is none, for ui",
        10,
        "study database",
        ("ui",),
        lambda box: (box.store / "dlsearch.db").write_bytes(pickled() * 1000),
    ),
    Input(
        "MLflow's database that is none, for ui",
        10,
        "MLflow database",
        ("ui",),
        lambda box: (box.store / "mlflow.db").write_bytes(pickled() * 1000),
    ),
    Input(
        "a view that never ends in place of the studies, for ui",
        10,
        "study database",
        ("ui",),
        lambda box: box.sql("dlsearch.db", "create view theirs as select 1"),
    ),
    Input(
        "artifacts of a run outside, for ui",
        10,
        "MLflow database",
        ("ui",),
        lambda box: box.sql("mlflow.db", f"update runs set artifact_uri = 'file://{box.outside}'"),
    ),
    Input(
        "artifacts of a run at a link, for ui",
        10,
        "MLflow database",
        ("ui",),
        lambda box: box.link(box.store / "artifacts", box.outside),
    ),
]

INPUTS = product(configs, pickles, names, links, unwritten, bombs, weights, servers)
