"""The rehearsal: everything that a trial will build is built once, before anything is written.

Of each kind of configuration one batch is trained and validated, by Lightning's own hooks.
"""

from __future__ import annotations

import importlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.app.joining import describe
from dlsearch.config.compose import resolve
from dlsearch.config.progress import training_length
from dlsearch.planning import transfer_sources
from dlsearch.planning.variations import list_variations

if TYPE_CHECKING:
    from dlsearch.app.prepare import Prepared
    from dlsearch.core.types import JsonObject
    from dlsearch.execution.processes.forkserver import ForkServer
    from dlsearch.planning.draft import Draft
    from dlsearch.storage.database import StudyRow

#: What opening the database and the report at the end import, seconds in all. A test holds that
#: nothing is missing.
LATER_IMPORTS = (
    "alembic.command",
    "sqlalchemy.dialects.sqlite",
    "matplotlib.figure",
    "matplotlib.backends.backend_svg",
    "scipy.stats",
    "jinja2",
    "dlsearch.report.facts.importance",
)


@dataclass(frozen=True)
class Rehearsal:
    """What building everything once has shown.

    Args:
        described: The data and the model, as the child process described them.
        provenance: Where, with what and from which code the study runs.
        transferred: Of each source of weights, what belongs into the provenance.
    """

    described: dict[str, Any]
    provenance: dict[str, Any]
    transferred: dict[str, Any] = field(default_factory=dict)

    @property
    def seal(self) -> str | None:
        """Who holds the seal on the test set on this machine, in a word or two."""
        found = self.described.get("seal")
        return None if found is None else found["by"]


def rehearse(prepared: Prepared, existing: StudyRow | None, server: ForkServer) -> Rehearsal:
    """Build the sampler, the pruner, and in a child process each representative configuration.

    There one batch of each is trained and validated, too. The fork server imports torch meanwhile;
    what the search itself needs is imported beside it.

    Args:
        prepared: The search; notices are added to its draft.
        existing: The study, where it is resumed.
        server: A fork server.

    Raises:
        ConfigError: Something cannot be built, the data are not there, or all trials would fail.
    """
    from dlsearch.core import provenance

    draft = prepared.draft
    origin = provenance.collect(
        config=draft.config,
        space=draft.space.to_json(),
        data={},
        allow_targets=draft.config["allow_targets"],
        threads=prepared.share.threads,
    )
    for module in LATER_IMPORTS:
        importlib.import_module(module)
    check_proposing(draft)
    sources = _find_weights(prepared, existing)
    payload: JsonObject = {
        "configs": draft.representatives(),
        "weights": transfer_sources.to_json(sources),
        "objectives": draft.objectives,
        "directions": draft.directions,
    }
    if not draft.study["rehearsal"] or _is_known(draft, existing):
        described = describe(server, payload)
    else:
        described = _rehearse_batches(prepared, server, payload)
    nodes = [draft.config["transfer"], *draft.options.get("transfer", {}).values()]
    transferred = transfer_sources.settle(nodes, sources, described.get("weights", {}))
    if transferred:
        origin["provenance"]["weights"] = transferred
    draft.notices += transfer_sources.lines(transferred)
    return Rehearsal(described, origin, transferred)


def _is_known(draft: Draft, existing: StudyRow | None) -> bool:
    """Whether the study exists, and searches the same: its trials have shown what they log."""
    if existing is None:
        return False
    from dlsearch.planning.open_study import is_unchanged

    return is_unchanged(existing, draft)


def _rehearse_batches(
    prepared: Prepared, server: ForkServer, payload: JsonObject
) -> dict[str, Any]:
    """Describe the data and the model, and try one batch of each kind of configuration.

    Names of objectives are settled in the draft, and notices added.

    Raises:
        ConfigError: All trials would fail.
    """
    from dlsearch.execution.rehearsal.judging import judge
    from dlsearch.execution.rehearsal.listening import listen_to
    from dlsearch.execution.rehearsal.messages import RehearsalPayload, Sight

    draft = prepared.draft
    variations = list_variations(draft)
    sights: list[Sight] = []
    with tempfile.TemporaryDirectory(prefix="dlsearch-rehearsal-") as folder:
        rehearsal = RehearsalPayload(
            candidates=variations,
            objectives=draft.objectives,
            directions=draft.directions,
            folder=folder,
            threads=prepared.share.threads,
        )
        described = describe(
            server,
            {**payload, "rehearsal": rehearsal.to_json()},
            lambda child: sights.extend(listen_to(child, draft.rehearsal_timeout)),
        )
    judgement = judge(
        sights,
        draft.objectives,
        trainer=resolve(OmegaConf.create(draft.config), "trainer"),
        candidates=[variation.said for variation in variations],
    )
    draft.objectives = judgement.objectives
    draft.notices += judgement.notices
    return described


def _find_weights(
    prepared: Prepared, existing: StudyRow | None
) -> dict[str, transfer_sources.WeightSource]:
    """Where the weights of each source lie that trials may begin with."""
    from dlsearch.study.documents import study_document

    draft = prepared.draft
    kept = None
    if existing is not None:
        transfer = study_document(existing.document)["config"].get("transfer")
        kept = transfer_sources.kept_files(transfer, Path(draft.config["paths"]["weights"]))
    return transfer_sources.find(
        transfer_sources.sources(draft),
        store=prepared.store,
        url=prepared.storage_url,
        data=Path(draft.config["paths"]["data"]),
        kept=kept,
        own=draft.name,
    )


def check_proposing(draft: Draft) -> None:
    """Build the sampler and the pruner once, as a worker will.

    Raises:
        ConfigError: One of them cannot be built.
    """
    from dlsearch.sampling.factory import build_pruner, build_sampler

    config = draft.config
    build_sampler(
        config["sampler"],
        space=draft.space,
        study_seed=config["seed"],
        number=0,
        directions=draft.directions,
    )
    length = training_length(config["trainer"])
    build_pruner(
        config["pruner"],
        max_epochs=length.amount,
        direction=draft.directions[0],
        length_key=length.key,
    )
