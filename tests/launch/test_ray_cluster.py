"""What a worker takes of a Ray cluster, and how many its nodes hold. For clusters: test_ray.py."""

from __future__ import annotations

import pytest

from dlsearch.core.errors import ConfigError
from dlsearch.launch.ray import Node, need


@pytest.mark.parametrize(("remote", "expected"), [
    ({"num_cpus": "auto", "num_gpus": "auto"}, {}),
    ({}, {}),
    ({"num_cpus": 2, "num_gpus": "auto"}, {"CPU": 2.0, "GPU": 0.0}),
    ({"num_cpus": "auto", "num_gpus": 0.5}, {"CPU": 1.0, "GPU": 0.5}),
    ({"num_cpus": None, "num_gpus": None}, {"CPU": 1.0, "GPU": 0.0}),
])  # fmt: skip
def test_what_a_worker_takes(remote, expected):
    assert need(remote) == expected


@pytest.mark.parametrize(("remote", "key"), [
    ({"num_cpus": -1}, "num_cpus"), ({"num_gpus": "half"}, "num_gpus"), ({"num_gpus": 1.5}, "num_gpus"),
    ({"num_cpus": True}, "num_cpus"),
])  # fmt: skip
def test_what_is_no_number_of_cores_or_cards_is_refused(remote, key):
    with pytest.raises(ConfigError, match=rf"hydra\.launcher\.ray\.remote\.{key}"):
        need(remote)


@pytest.mark.parametrize(("cpus", "gpus", "taken", "expected"), [
    (8.0, 0.0, {"CPU": 2.0, "GPU": 0.0}, 4),
    (8.0, 2.0, {"CPU": 1.0, "GPU": 0.5}, 4),
    (3.0, 2.0, {"CPU": 1.0, "GPU": 0.5}, 3),
    (8.0, 1.0, {"CPU": 0.0, "GPU": 0.1}, 10),
    (8.0, 0.0, {"CPU": 1.0, "GPU": 1.0}, 0),
])  # fmt: skip
def test_how_many_workers_a_node_holds(cpus, gpus, taken, expected):
    assert Node("n", cpus, gpus).holds(taken) == expected
