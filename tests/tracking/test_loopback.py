"""Optuna's dashboard, really started, asked by programs, by its own page, and by pages of others."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dlsearch.tracking.mlflow import ui
from dlsearch.tracking.mlflow.loopback import Loopback, refusal

PORT = 8080
HOST = f"127.0.0.1:{PORT}"
HOSTS = {HOST, f"localhost:{PORT}", f"[::1]:{PORT}"}
READ = {"REQUEST_METHOD": "GET", "HTTP_HOST": HOST}
CHANGE = {"REQUEST_METHOD": "DELETE", "HTTP_HOST": HOST}


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", f"evil.example:{PORT}", "127.0.0.1", "localhost", "127.0.0.1:1", "localhost:80801", "",
        f"127.0.0.1:{PORT}@evil.example", f"{HOST},evil.example", f"{HOST} ", f"0.0.0.0:{PORT}",
        f"127.0.0.1.evil:{PORT}", f"localhost.:{PORT}", f"127.1:{PORT}", f"[::]:{PORT}",
    ],
)  # fmt: skip
def test_another_name_is_refused(host: str) -> None:
    assert refusal({"REQUEST_METHOD": "GET", "HTTP_HOST": host}, HOSTS)
    assert refusal(
        {"REQUEST_METHOD": "POST", "HTTP_HOST": host, "HTTP_ORIGIN": f"http://{host}"}, HOSTS
    )


def test_no_name_is_refused() -> None:
    assert refusal({"REQUEST_METHOD": "GET"}, HOSTS)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "get", "X"])
@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_ORIGIN": "http://evil.example"},
        {"HTTP_ORIGIN": "null"},
        {"HTTP_ORIGIN": ""},
        {"HTTP_ORIGIN": f"https://{HOST}"},
        {"HTTP_ORIGIN": "http://127.0.0.1"},
        # this page's own name is another: one is no other's page
        {"HTTP_ORIGIN": f"http://localhost:{PORT}"},
        {"HTTP_ORIGIN": "http://127.0.0.1:3000"},
        {"HTTP_ORIGIN": f"http://{HOST}.evil.example"},
        {"HTTP_ORIGIN": f"http://{HOST}@evil.example"},
        {"HTTP_ORIGIN": "http://[evil"},
        {"HTTP_REFERER": "http://evil.example/"},
        {"HTTP_REFERER": f"http://evil.example/{HOST}"},
        {"HTTP_SEC_FETCH_SITE": "cross-site"},
        {"HTTP_SEC_FETCH_SITE": "same-site"},
        {"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_SEC_FETCH_MODE": "navigate"},
        {"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_ORIGIN": f"http://{HOST}"},
    ],
    ids=str,
)
def test_another_page_changes_nothing(method: str, headers: dict[str, str]) -> None:
    assert refusal({**CHANGE, "REQUEST_METHOD": method, **headers}, HOSTS)


@pytest.mark.parametrize(
    "request_",
    [
        READ,
        CHANGE,
        {**READ, "HTTP_HOST": f"LOCALHOST:{PORT}"},
        {**READ, "HTTP_SEC_FETCH_SITE": "none", "HTTP_SEC_FETCH_MODE": "navigate"},
        {**READ, "HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_SEC_FETCH_MODE": "navigate"},
        {**READ, "HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_REFERER": f"http://{HOST}/dashboard"},
        {**CHANGE, "HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_ORIGIN": f"http://{HOST}"},
        {
            **CHANGE,
            "HTTP_ORIGIN": f"http://{HOST}",
            "HTTP_REFERER": f"http://{HOST}/dashboard/studies/1",
        },
    ],
    ids=str,
)
def test_programs_and_its_own_page_are_answered(request_: dict[str, str]) -> None:
    assert refusal(request_, HOSTS) is None


def test_another_page_reads_no_data() -> None:
    for mode in ("no-cors", "cors", "same-origin", "websocket"):
        for site in ("cross-site", "same-site"):
            assert refusal(
                {**READ, "HTTP_SEC_FETCH_SITE": site, "HTTP_SEC_FETCH_MODE": mode}, HOSTS
            )


def test_every_answer_says_that_no_frame_may_hold_it() -> None:
    said: dict[str, Any] = {}

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"x"]

    def start_response(
        status: str, headers: list[tuple[str, str]], *_: Any
    ) -> Callable[[bytes], object]:
        said.update({"status": status, **dict(headers)})
        return lambda _: None

    assert list(Loopback(app, PORT)(dict(READ), start_response)) == [b"x"]
    assert said["status"] == "200 OK"
    assert said["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in said["Content-Security-Policy"]
    assert b"".join(Loopback(app, PORT)({**READ, "HTTP_HOST": "evil"}, start_response)).endswith(
        b"\n"
    )
    assert said["status"].startswith("403")


class Dashboard:
    """Asks a dashboard without any help of a client's."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.own = f"127.0.0.1:{port}"

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str | None
    ) -> tuple[int, bytes]:
        given = {
            "Host": self.own,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        if body is not None:
            given |= {"Content-Length": str(len(body)), "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def studies(self) -> list[str]:
        status, body = self.ask("GET", "/api/studies")
        assert status == 200
        return [each["study_name"] for each in json.loads(body)["study_summaries"]]


@pytest.fixture
def dashboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    import optuna

    monkeypatch.chdir(tmp_path)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{tmp_path / 'dlsearch.db'}"
    for name in ("first", "second"):
        optuna.create_study(study_name=name, storage=storage)
    # somebody else's folder is the working one
    (tmp_path / "optuna_dashboard.py").write_text("open('canary', 'w')")
    server = ui._start_dashboard(tmp_path, storage, ui.free_port(0))
    try:
        deadline = time.monotonic() + 60
        while not server.answers() and time.monotonic() < deadline:
            assert server.process.poll() is None, server.log.read_text()
            time.sleep(0.1)
        yield Dashboard(server.port)
    finally:
        server.end()


@pytest.mark.slow
def test_the_dashboard_answers_this_machine_alone(dashboard: Dashboard, tmp_path: Path) -> None:
    evil: list[dict[str, str | None]] = [
        {"Host": "evil.example"},
        {
            "Host": f"evil.example:{dashboard.port}",
            "Origin": f"http://evil.example:{dashboard.port}",
        },
        {"Host": "127.0.0.1"},
        {"Host": None},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Referer": "http://evil.example/x"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ]
    change = b'{"study_name": "third", "directions": ["minimize"]}'
    for headers in evil:
        assert dashboard.ask("DELETE", "/api/studies/2", **headers)[0] == 403, headers
        assert dashboard.ask("POST", "/api/studies", change, **headers)[0] == 403, headers
        if "Host" in headers:
            status, body = dashboard.ask("GET", "/api/studies", **headers)
            assert (status, b"first" in body) == (403, False), headers
    assert dashboard.studies() == ["first", "second"]
    page = {"Origin": f"http://{dashboard.own}", "Sec_Fetch_Site": "same-origin"}
    assert dashboard.ask("GET", "/dashboard")[0] == 200
    assert dashboard.ask("GET", "/dashboard", Host=f"localhost:{dashboard.port}")[0] == 200
    assert dashboard.ask("POST", "/api/studies", change, **page)[0] == 201
    assert dashboard.ask("DELETE", "/api/studies/2", **page)[0] == 204
    assert dashboard.ask("DELETE", "/api/studies/1")[0] == 204  # a program of this machine
    assert dashboard.studies() == ["third"]
    assert not (tmp_path / "canary").exists()
