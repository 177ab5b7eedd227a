"""A machine joins a study that was opened elsewhere: is it there, and is it the same here?

That is asked before a trial is claimed: one that fails because of its machine has failed for good,
and one that trained on other data is worth nothing.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dlsearch.console.terminal import warn
from dlsearch.core.errors import ConfigError
from dlsearch.planning import transfer_sources
from dlsearch.storage.database import StudyRow
from dlsearch.storage.location import exists, mask
from dlsearch.study.trial_config import trial_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dlsearch.execution.processes.forkserver import Child, ForkServer
    from dlsearch.study.study import Study
    from dlsearch.study.trial_secrets import TrialSecrets


LOOK_S = 1.0  # between two looks for a study


def await_study(url: str, name: str, patience_s: float) -> None:
    """Wait until the study is there; its database may not be, either. Creates nothing.

    Args:
        url: The storage.
        name: The study.
        patience_s: So many seconds.

    Raises:
        ConfigError: It did not come.
    """
    until = time.monotonic() + patience_s
    said = False
    while (missing := _missing(url, name)) is not None:
        if time.monotonic() > until:
            raise ConfigError(
                "study", f"{missing} after {patience_s:g} s", "worker.wait=1h waits longer"
            )
        if not said:
            warn(f"waiting up to {patience_s:g} s: {missing}")
            said = True
        time.sleep(LOOK_S)


def _missing(url: str, name: str) -> str | None:
    """What is not there; None where the study is."""
    if not exists(url):
        return f"there is no {mask(url)}"
    connect = {} if url.startswith("sqlite") else {"connect_timeout": 5}
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool, connect_args=connect)
    try:
        with engine.connect() as connection:
            found = connection.execute(
                sa.select(StudyRow.name).where(StudyRow.name == name)
            ).first()
    except sa.exc.OperationalError as error:
        line = (str(error.orig or error).splitlines() or [""])[0]
        return (
            "there are no studies yet"
            if "no such table" in line
            else f"cannot open {mask(url)}: {line}"
        )
    except sa.exc.ProgrammingError:
        return "there are no studies yet"
    finally:
        engine.dispose()
    return None if found else f"there is no study {name!r} yet"


def describe(
    server: ForkServer,
    payload: Mapping[str, Any],
    listen: Callable[[Child], None] | None = None,
) -> dict[str, Any]:
    """Build what `payload` names once, in a child of the fork server, and describe it.

    Args:
        server: A fork server.
        payload: A :class:`dlsearch.execution.messages.PreflightPayload`.
        listen: Listens to what the child says after its description.

    Raises:
        ConfigError: Something cannot be built, or the data are not there.
    """
    try:
        child = server.spawn(
            "dlsearch.execution.trial_main:preflight",
            dict(payload),
            env={},
            log=None,
        )
    except OSError as error:
        raise RuntimeError("the fork server died while importing; its message is above") from error
    try:
        found = child.channel.receive()
        if listen is not None and found is not None and "error" not in found:
            listen(child)
        code = child.reap()
    finally:
        child.close()
    if found is None:
        raise RuntimeError(f"the check of the configuration ended with exit status {code}")
    if "error" in found:
        raise ConfigError(*found["error"])
    return found


def check_machine(
    server: ForkServer,
    study: Study,
    paths: Mapping[str, Any],
    secrets: TrialSecrets,
) -> None:
    """Check that this machine has the study's data, and the weights that its trials begin with.

    Args:
        server: A fork server.
        study: The open study.
        paths: This machine's ``paths`` config, absolute.
        secrets: What the masks of the study's document hide.

    Raises:
        ConfigError: Something is missing, or is not what the study was opened with.
    """
    document = study.document
    nodes = [document["config"].get("transfer"), *document["options"].get("transfer", {}).values()]
    for node in nodes:
        for name, path in transfer_sources.kept_files(node, Path(paths["weights"])).items():
            if not path.is_file():
                hint = f"copy {path.name} from paths.weights of the machine that opened the study"
                raise ConfigError(
                    "paths.weights", f"the weights {name} are not in {path.parent}", hint
                )
    config = trial_config(
        document,
        {},
        seed=study.seed,
        paths=paths,
        secrets=secrets,
    )
    config["transfer"] = {**(config.get("transfer") or {}), "weights": None}
    goals = {"objectives": document["objectives"], "directions": document["directions"]}
    found = describe(server, {"configs": [config], "weights": {}, **goals})
    there, here = (each.get("data", {}).get("digests") or {} for each in (document, found))
    for split in sorted({*there} & {*here}):
        if there[split] != here[split]:
            what = (
                f"the {split} data here are others "
                f"({here[split][:12]}…, in the study {there[split][:12]}…)"
            )
            raise ConfigError(
                "paths.data", what, "the study's data set, unchanged, on every machine"
            )
