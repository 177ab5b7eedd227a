"""Opening the study of a search: the first moment at which something is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlsearch.app.prepare import keep_share_of_study
from dlsearch.planning import transfer_sources
from dlsearch.planning.draft import keep_goals_of_study
from dlsearch.storage.location import exists
from dlsearch.study.documents import study_document

if TYPE_CHECKING:
    from dlsearch.app.prepare import Prepared
    from dlsearch.app.rehearse import Rehearsal
    from dlsearch.storage.database import StudyRow
    from dlsearch.study.study import Study


@dataclass(frozen=True)
class OpenedStudy:
    """The study of a search.

    Args:
        study: It, open.
        resumed: Whether it existed.
        diff: The uncommitted change of the code that runs it.
    """

    study: Study
    resumed: bool
    diff: str | None


def find_existing_study(prepared: Prepared) -> StudyRow | None:
    """The study's row, where the study exists.

    Its trials keep the threads that they had, and the study its goals.

    Raises:
        ConfigError: It has another number of threads than is asked for.
        DatabaseAwayError: The storage did not answer.
    """
    if not exists(prepared.storage_url):
        return None
    from dlsearch.storage.database import Storage
    from dlsearch.storage.studies import read_row

    storage = Storage(prepared.storage_url, patience_s=prepared.patience_s)
    row = storage.surely(lambda: read_row(storage, prepared.draft.name))
    storage.close()
    if row is not None:
        document = study_document(row.document)
        keep_share_of_study(prepared, document)
        keep_goals_of_study(prepared.draft, document)
    return row


def open_or_resume(
    prepared: Prepared,
    rehearsal: Rehearsal,
    existing: StudyRow | None,
) -> OpenedStudy:
    """Write the study, or take the new budgets over into the one that exists.

    Args:
        prepared: The search; notices are added to its draft.
        rehearsal: What building everything once has shown.
        existing: The study, where it existed when it was looked for.

    Raises:
        ConfigError: It exists and is not the same study.
        DatabaseAwayError: The storage did not answer.
    """
    from dlsearch.confirmation.rounds import Rounds
    from dlsearch.planning import open_study
    from dlsearch.sampling.unpickling import check_states
    from dlsearch.storage.database import Storage

    draft = prepared.draft
    document = open_study.document_of(draft, rehearsal.described, rehearsal.provenance)
    if existing is not None:  # a config that drifted is refused before anything is written
        open_study.check_drift(existing, document, bool(draft.study["allow_drift"]))
    prepared.store.mkdir(parents=True, exist_ok=True)
    storage = Storage(prepared.storage_url, patience_s=prepared.patience_s)
    study, resumed = open_study.open_study(
        storage,
        draft,
        document,
        lease_s=draft.config["worker"]["lease_s"],
    )
    if resumed and "CmaEsSampler" in json.dumps(draft.config["sampler"]):
        check_states(trial.system_attrs for trial in study.optuna.get_trials(deepcopy=False))
    transfer_sources.keep(
        Path(draft.config["paths"]["weights"]),
        rehearsal.transferred,
        rehearsal.described.get("files", {}),
    )
    if resumed and storage.surely(Rounds(study).reopen):
        draft.notices.append(
            "the winner's scoring had failed: it is done again, and the ledger has a row for each"
        )
    if resumed and study.finalize:
        opening = storage.surely(lambda: _describe_next_opening(study))
        if opening is not None:
            draft.notices.append(opening)
    return OpenedStudy(study, resumed, rehearsal.provenance.get("diff"))


def _describe_next_opening(study: Study) -> str | None:
    """What a study that goes on says of the test set; None where it will not be opened again."""
    from dlsearch.app.phrases import describe_next_opening
    from dlsearch.confirmation.rounds import Rounds
    from dlsearch.records.status import read_status

    if study.budget().finished:
        return None
    is_confirmed = Rounds(study).done()
    return describe_next_opening(read_status(study), is_certain=not is_confirmed)
