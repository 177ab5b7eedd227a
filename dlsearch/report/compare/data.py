"""Which data the studies of a comparison share: by the digests of their splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlsearch.report.compare.models import SPLITS, DataVerdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlsearch.report.compare.models import DataComparison
    from dlsearch.report.study import View

#: Characters of a digest that a table shows.
SHOWN_DIGITS = 12


@dataclass(frozen=True)
class _StudyData:
    """What one study was trained and scored on."""

    study: str
    name: str | None
    sizes: Mapping[str, int]
    digests: Mapping[str, str]

    def short_digest(self, split: str) -> str | None:
        """The beginning of a split's digest, where it is known."""
        return (self.digests.get(split) or "")[:SHOWN_DIGITS] or None


def compare_data(views: Sequence[View]) -> DataComparison:
    """Which splits the studies share."""
    known = [_data_of(v) for v in views]
    same = {split: _is_shared(known, split) for split in SPLITS}
    rows = _rows_of(known)
    without = [data.study for data in known if not data.digests]
    if without:
        note = f"what {', '.join(without)} was trained and scored on is not recorded"
        return {
            "verdict": DataVerdict.UNKNOWN,
            "same": same,
            "rows": rows,
            "notes": [note],
        }
    verdict = _verdict_on(same)
    return {
        "verdict": verdict,
        "same": same,
        "notes": _notes_on(verdict, known, same),
        "rows": rows,
    }


def _notes_on(
    verdict: DataVerdict,
    known: Sequence[_StudyData],
    same: Mapping[str, bool],
) -> list[str]:
    """What differs: the data sets, or the splits of one."""
    if verdict is DataVerdict.SAME:
        return []
    splits = ", ".join(_differing_splits(known, same))
    if verdict is not DataVerdict.DIFFERENT:
        return [f"the studies differ in {splits}"]
    names = list(dict.fromkeys(str(data.name) for data in known))
    return [" and ".join(names)] if len(names) > 1 else [splits]


def _data_of(v: View) -> _StudyData:
    data: Mapping[str, Any] = v.study.get("data") or {}
    return _StudyData(
        study=v.study["name"],
        name=data.get("name"),
        sizes=data.get("sizes") or {},
        digests=data.get("digests") or {},
    )


def _is_shared(known: Sequence[_StudyData], split: str) -> bool:
    digests = {data.digests.get(split) for data in known}
    return len(digests) == 1 and bool(digests.pop())


def _rows_of(known: Sequence[_StudyData]) -> list[tuple[str, list[Any]]]:
    """Name, sizes and digests, a value each study."""
    sizes = [(f"{split} examples", [data.sizes.get(split) for data in known]) for split in SPLITS]
    digests = [
        (f"{split} digest", [data.short_digest(split) for data in known]) for split in SPLITS
    ]
    return [("name", [data.name for data in known]), *sizes, *digests]


def _verdict_on(same: Mapping[str, bool]) -> DataVerdict:
    if all(same.values()):
        return DataVerdict.SAME
    if not same["val"] and not same["test"]:
        return DataVerdict.DIFFERENT
    if same["val"] and same["test"]:
        return DataVerdict.TRAINING
    return DataVerdict.SPLIT


def _differing_splits(known: Sequence[_StudyData], same: Mapping[str, bool]) -> list[str]:
    """The splits that differ, with their sizes."""
    texts: list[str] = []
    for split in SPLITS:
        if same[split]:
            continue
        sizes = [str(data.sizes.get(split)) for data in known]
        others = ", other ones" if len(set(sizes)) == 1 else ""
        texts.append(f"{split} ({' / '.join(sizes)} examples{others})")
    return texts
