"""Hydra's own node, which Hydra resolves and builds by itself, comes to texts and numbers alone."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from dlsearch.config.compose import compose_config
from dlsearch.config.hydra_node import check_hydra
from dlsearch.core.errors import ConfigError

CALL = "{_target_: os.mkdir, path: canary}"
OBJECTS = [
    f"${{oc.create:{CALL}}}", f"${{oc.decode:'{CALL}'}}", "${oc.decode:${evil.text}}", f"a ${{oc.create:{CALL}}} b",
    rf"\${{oc.create:{CALL}}}", rf"\\\${{oc.create:{CALL}}}", "${evil}", "${evil.node}", "${evil.list}",
    "${evil.again}", "${evil.${evil.name}}", "${hydra:env}", "${hydra:planted}", "${hydra:planted.text}",
    "${hydra.planted}", "${evil.deep.node}", "${oc.dict.values:evil}", "${oc.select:evil}",
    "${oc.env:HOME,${oc.create:{a: 1}}}", "${oc.deprecated:evil}", "${evil.list[0]}", "${evil[node]}",
    "${evil.escaped}", "${hydra:${evil.name}}",
]  # fmt: skip
EVIL = {
    "node": {"_target_": "os.mkdir", "path": "canary"},
    "again": "${evil.node}",
    "list": [{"_target_": "os.mkdir"}],
    "text": CALL,
    "name": "node",
    "deep": "${evil}",
    "escaped": r"\${oc.create:{a: 1}}",
}


def config(hydra):
    planted = {"planted": {"text": f"${{oc.create:{CALL}}}", "_target_": "os.mkdir"}}
    return OmegaConf.create({"evil": EVIL, "hydra": {"env": {"a": 1}, **planted, **hydra}})


@pytest.mark.parametrize("text", OBJECTS)
@pytest.mark.parametrize(
    "place",
    [
        lambda text: {"launcher": {"planted": 1, "workers": text}},
        lambda text: {"sweeper": {"deep": [{"a": text}]}},
        lambda text: {"callbacks": text},
        lambda text: {"callbacks": {"x": text}},
        lambda text: {"job_logging": {"handlers": text}},
        lambda text: {"job": {"env_set": {"OMP_NUM_THREADS": text}}},
        lambda text: {"run": {"dir": text}},
    ],
)
def test_what_may_come_to_an_object_is_refused(text, place):
    cfg = config(place(text))
    del cfg.hydra.planted["text"]
    if "planted.text" in text:
        cfg.hydra.planted = {"text": f"${{oc.create:{CALL}}}"}
    with pytest.raises(ConfigError, match=r"^hydra\."):
        check_hydra(cfg)


@pytest.mark.parametrize(
    "text", ["${.node}", "${..evil}", "${..evil.node}", "${...evil}", "${.node._target_.x}"]
)
def test_nor_may_a_name_that_begins_where_it_stands(text):
    cfg = OmegaConf.create(
        {"evil": EVIL, "hydra": {"launcher": {"workers": text, "node": EVIL["node"]}, "evil": EVIL}}
    )
    if "_target_" in text:
        cfg.hydra.launcher.node._target_ = "${evil}"
    with pytest.raises(ConfigError, match=r"^hydra\."):
        check_hydra(cfg)


@pytest.mark.parametrize(
    "launcher", ["local", "basic", "joblib", "submitit_local", "submitit_slurm", "ray", "slurm"]
)
def test_every_launcher_of_ours_passes(launcher):
    compose_config([f"hydra/launcher={launcher}"], with_hydra=True)
