"""Text from elsewhere that stands for too much is refused in one line, at once, wherever it is read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dlsearch.cli.main import guarded
from dlsearch.core.bounded import load_plain_yaml, load_yaml, parse_json, parse_yaml, read_json
from dlsearch.core.errors import ConfigError
from dlsearch.planning.draft import _enqueue
from dlsearch.records.record import read_record
from dlsearch.storage.database import Storage, StudyRow
from dlsearch.study.kept_model import Kept
from dlsearch.study.study import Study
from dlsearch.tracking.destination import recall
from dlsearch.tracking.journal import MAX_ROW, Journal, read, rows, run_id, shipped_path
from dlsearch.tracking.tail import Tail
from dlsearch.verification.report_file import load as load_record
from tests.study import studies


def laughs(levels: int = 9, times: int = 10) -> str:
    lines = [f"a0: &a0 [{', '.join(['x'] * times)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * times)}]" for n in range(1, levels)]
    return "\n".join(lines)


def maps(levels: int = 9, times: int = 10) -> str:
    lines = ["a0: &a0 {x: y}"]
    lines += [
        f"a{n}: &a{n} {{{', '.join(f'k{i}: *a{n - 1}' for i in range(times))}}}"
        for n in range(1, levels)
    ]
    return "\n".join(lines)


def merges(levels: int = 30) -> str:
    lines = ["a0: &a0 {x: y, z: w}"]
    lines += [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, levels)]
    return "\n".join(lines)


YAMLS = {
    "aliases": laughs(),
    "aliases of mappings": maps(),
    "merged mappings": merges(),
    "wide": "a: [" + "1," * 1_500_000 + "1]",
    "flat": "\n".join(f"k{n}: 1" for n in range(30_000)),
    "deep lists": "a: " + "[" * 100_000 + "]" * 100_000,
    "deep mappings": "".join("{a: " for _ in range(100_000)) + "1" + "}" * 100_000,
    "deep blocks": "\n".join(" " * n + "a:" for n in range(2_000)),
    "itself": "a: &a [*a]",
    "long number": "a: " + "9" * 3_000_000,
    "number of base 60": "a: 1" + ":59" * 900_000,
    "tagged number": 'a: !!int "' + "1" + ":59" * 900_000 + '"',
    "tagged float": 'a: !!float "' + "1" + ":59" * 900_000 + '.0"',
    "bytes": "a: b" + "x" * 5_000_000,
    "object": "a: !!python/object/apply:os.system [true]",
    "no YAML": "a: [",
}
JSONS = {
    "depth": "[" * 100_000 + "]" * 100_000,
    "depth that json takes": "[" * 500 + "]" * 500,
    "mappings": '{"a":' * 500 + "1" + "}" * 500,
    "long number": "9" * 1_000_000,
    "many": "[" + "[]," * 3_000_000 + "[]]",
    "long": '"' + "x" * 65_000_000 + '"',
    "cut short": '{"a": [1,',
}


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    before = time.process_time()
    yield
    assert time.process_time() - before < 20


def refused(action: Callable[[], object]) -> None:
    with pytest.raises(ConfigError) as caught:
        action()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", YAMLS)
def test_a_yaml_that_stands_for_too_much_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(YAMLS[name])
    refused(lambda: load_yaml(path))
    refused(lambda: load_plain_yaml(path))
    refused(lambda: parse_yaml(YAMLS[name], "here"))


def test_what_is_no_text_or_no_config_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for content in (b"\xff\xfe\x00", b"- 1\n- 2"):
        path.write_bytes(content)
        refused(lambda: load_yaml(path))
    refused(lambda: load_yaml(tmp_path / "nothing.yaml"))
    refused(lambda: load_yaml(tmp_path))


def test_a_config_is_read_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "a: &a {x: 1e-4, y: [1, 2]}\nb: [*a, *a]\nc: ${a.x}\nd: '" + "x" * 10_000 + "'\n"
    )
    cfg = load_yaml(path)
    assert (cfg.b[1].x, cfg.c, len(cfg.d)) == (1e-4, 1e-4, 10_000)


@pytest.mark.parametrize("name", JSONS)
def test_a_json_that_stands_for_too_much_is_refused(tmp_path: Path, name: str) -> None:
    refused(lambda: parse_json(JSONS[name], "here"))
    refused(lambda: parse_json(JSONS[name].encode(), "here"))
    path = tmp_path / "report.json"
    path.write_text(JSONS[name])
    refused(lambda: read_json(path))
    refused(lambda: load_record(path))


@pytest.mark.parametrize("name", JSONS)
def test_a_row_that_stands_for_too_much_is_passed_over(tmp_path: Path, name: str) -> None:
    path = tmp_path / "journal.jsonl"
    evil = (
        JSONS[name]
        if name != "long"
        else json.dumps({"row": "tags", "t": 1, "values": {"x": "x" * 40_000_000}})
    )
    with Journal(path) as journal:
        journal.open("train", "r", "e")
    with path.open("a") as file:
        file.write(f'{evil}\n{{"row": "tags", "t": 1, "values": {evil}}}\n')
    with Journal(path) as journal:
        journal.status("FINISHED")
    assert [row["row"] for row in rows(path)] == ["open", "status"]


def test_a_long_row_without_an_end_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.open("train", "r", "e")
    size = path.stat().st_size
    with path.open("a") as file:
        file.write("x" * (2 * MAX_ROW))
    found, end = read(path)
    assert ([row["row"] for row, _ in found], end) == (["open"], size)
    assert read(path, size) == ([], size)


@pytest.mark.parametrize(
    "text", [*JSONS.values(), "[]", '"x"', "{}", '{"server": 1, "offset": {}}', "null"]
)
def test_notes_of_a_shipper_that_are_none_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "studies/s/journal.jsonl"
    path.parent.mkdir(parents=True)
    shipped_path(path).write_text(text)
    (path.parent / "tracking.json").write_text(text)
    assert run_id(path) is None
    assert Tail.load(path, "x").run_id is None
    recall(tmp_path, path.parent)


@pytest.mark.parametrize("name", YAMLS)
def test_a_store_s_config_that_stands_for_too_much_is_refused(tmp_path: Path, name: str) -> None:
    from dlsearch.inference.model import load

    folder = tmp_path / "studies/s"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(YAMLS[name])
    assert recall(tmp_path, folder) is None
    refused(lambda: load(Kept("s", "trial", 0, folder / "config.yaml", folder / "best.ckpt")))


@pytest.mark.parametrize("name", YAMLS)
def test_parameter_sets_that_stand_for_too_much_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "sets.yaml").write_text(YAMLS[name])
    with pytest.raises(ConfigError, match=r"study\.enqueue"):
        _enqueue(studies.draft(study={"enqueue": str(tmp_path / "sets.yaml")}))


@pytest.mark.parametrize("name", JSONS)
@pytest.mark.parametrize("place", ["document", "result"])
def test_a_database_that_stands_for_too_much_is_refused(
    tmp_path: Path, name: str, place: str
) -> None:
    study = studies.opened(tmp_path)
    claim = study.claim(studies.holder())
    assert claim is not None
    study.finish(claim, studies.complete())
    text = JSONS[name]
    with study.storage.begin() as connection:
        if place == "document":
            connection.execute(sa.update(StudyRow).values(document=text))
        else:
            connection.execute(
                sa.text("UPDATE dlsearch_attempt SET result = :text"), {"text": text}
            )
    study.storage.close()

    def look() -> Any:
        storage = Storage(f"sqlite:///{tmp_path}/dlsearch.db")
        try:
            return read_record(Study(storage, study.name)).to_json()
        finally:
            storage.close()

    refused(look)


def test_what_a_library_reads_too_deeply_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: json.loads(JSONS["depth"])) == 2
    assert capsys.readouterr().err == (
        "dlsearch: something that was read is nested too deeply (DLSEARCH_DEBUG=1 shows where)\n"
    )
