"""A study's own run in MLflow: what describes the study, how it goes, and its report."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.core.files.inside import plain
from dlsearch.core.files.regular import write_text
from dlsearch.core.masking import mask
from dlsearch.study.states import RecordedTrialState
from dlsearch.tracking import layout
from dlsearch.tracking.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlsearch.records.status import Status
    from dlsearch.study.study import Study

_DESCRIPTION = ("config.yaml", "overrides.txt", "search_space.yaml")


class StudyRun:
    """The journal of a study's own run; the shipper sends it to MLflow.

    Args:
        study: The open study.
        store: The store.
    """

    def __init__(self, study: Study, store: Path) -> None:
        """Nothing is written yet."""
        self._study = study
        self._folder = layout.study_folder(study.name)
        self._store = store
        self._journal = Journal(store / self._folder / "journal.jsonl")

    def open(self, config: Mapping[str, Any], diff: str | None) -> None:
        """Write the run's tags, what is fixed, the files that describe it, and its data.

        Args:
            config: The composed config.
            diff: The uncommitted change of the code; MLflow records the commit alone.
        """
        document = self._study.document
        folder = plain(self._store, self._folder, deep=False)
        folder.mkdir(parents=True, exist_ok=True)
        space = OmegaConf.create({"space": document["space"]})
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(mask(config))))
        overrides = [f"{line}\n" for line in document["overrides"]]
        write_text(folder / "overrides.txt", "".join(overrides))
        write_text(folder / "search_space.yaml", OmegaConf.to_yaml(space))
        self._journal.open(
            "study",
            layout.study_run_name(self._study.name),
            document["experiment"],
            None,
            layout.study_tags(document),
        )
        searched = {dim["name"] for dim in document["space"]}
        self._journal.params(layout.flatten_params(document["config"], searched))
        for name in _DESCRIPTION:
            self._journal.artifact(folder / name, layout.STUDY_ARTIFACTS)
        provenance = json.dumps(document["provenance"], indent=1, sort_keys=True)
        write_text(folder / "provenance.json", provenance)
        self._journal.artifact(folder / "provenance.json", layout.ENV_ARTIFACTS)
        if diff:
            write_text(folder / "diff.patch", diff)
            self._journal.artifact(folder / "diff.patch", layout.CODE_ARTIFACTS)
        self._note_data(document["data"])
        self._journal.flush()

    def _note_data(self, data: Mapping[str, Any]) -> None:
        digests = data.get("digests", {})
        for split, context in (("train", "train"), ("val", "validation")):
            digest = digests.get(split)
            if digest:
                self._journal.dataset(data["name"], digest, context, data["name"])

    def note_trial_end(
        self,
        number: int,
        status: Status,
        trials_per_hour: float,
    ) -> None:
        """Write how the study goes, as of the end of trial `number`."""
        rows: dict[str, float] = {}
        for state, count in status.counts.items():
            if state is not RecordedTrialState.WAITING:
                rows[f"n/{state}"] = count
        if status.best is not None:
            rows["best/objective"] = status.best.value
        rows["throughput/trials_per_h"] = trials_per_hour
        with suppress(OSError):  # the disk is full: the rows are kept until it is not
            self._journal.metrics(rows, number)
            self._journal.flush()

    def close(
        self,
        report: Path | None,
        *,
        best_trial: int | None,
        status: str,
    ) -> None:
        """End the run.

        Args:
            report: The folder of the study's report.
            best_trial: Its best trial.
            status: MLflow's word for how it ended.
        """
        if report is not None:
            for path in sorted(report.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    place = Path("report") / path.parent.relative_to(report)
                    self._journal.artifact(path, str(place))
        if best_trial is not None:
            self._journal.tags({layout.BEST_TRIAL: str(best_trial)})
        self._journal.status(status)
        self._journal.close()
