"""The command: a flat Hydra application, so that all that Hydra's users type works.

A first word that is a verb goes to :mod:`dlsearch.verbs`. Imports nothing heavy:
``--help``, completion and ``--cfg`` answer at once.

Exit codes: 0 done, 1 failed, 2 bad input, 75 the database was away for too long, 130 interrupted.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dlsearch.config.compose import CONFIG_NAME, config_dir, explain
from dlsearch.config.errors import AWAY, ConfigError, DatabaseAwayError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from omegaconf import DictConfig

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
LOOKS = ("status", "studies", "trials")  # verbs that read, say and end


def main(argv: list[str] | None = None) -> None:
    """Run the command line `argv` (``sys.argv[1:]`` by default) and exit."""
    words = sys.argv[1:] if argv is None else argv
    here = str(Path.cwd())
    if here not in sys.path:  # a package of the user's beside her configs; last, so that it shadows nothing
        sys.path.append(here)
    sys.exit(guarded(lambda: _dispatch(words)))


def command() -> None:
    """What is installed as ``dlsearch``: :func:`main`, as a process of its own."""
    try:
        main()
    except SystemExit as end:
        if sys.argv[1:] and sys.argv[1] in LOOKS and isinstance(end.code, int):
            with suppress(OSError):  # whoever read it has gone
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(end.code)  # taking every module down would be a fifth of the time
        raise


def _dispatch(words: list[str]) -> int:
    from dlsearch.tracking.masking import learn, learn_environment
    from dlsearch.verbs import VERBS

    learn(words)
    learn_environment()
    if words and not words[0].startswith("-") and "=" not in words[0]:
        if words[0] not in VERBS:
            hint = did_you_mean(words[0], VERBS, "see --help")
            raise ConfigError(words[0], "is neither a verb nor an override", hint)
        with _unswept() if words[0] in LOOKS and "--follow" not in words else nullcontext():
            return VERBS[words[0]](words[1:])
    if words in (["--help"], ["-h"]):
        from dlsearch.verbs.overview import page

        sys.stdout.write(page())
        return DONE
    return _hydra(words)


@contextmanager
def _unswept() -> Iterator[None]:
    """Leave garbage lie: what looks once ends before it matters, and looking for it takes a part of all imports."""
    swept = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if swept:
            gc.enable()


def guarded(action: Callable[[], int]) -> int:
    """Run, and turn whatever goes wrong into an exit code and one line."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import MarkedYAMLError

    try:
        return action()
    except (ConfigError, HydraException, OmegaConfBaseException, MarkedYAMLError) as error:
        _say(str(explain(error)))
        return BAD_INPUT
    except DatabaseAwayError as error:
        _say(str(error))
        return AWAY
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else DONE if end.code is None else FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader went away: `dlsearch trials x | head`
        return DONE
    except Exception as error:
        if str(error).startswith("Config group override must be"):  # Hydra's word for `model=null`; it names no key
            _say("config: a group was set to null (hint: an experiment may do that; on the command line use ~group)")
            return BAD_INPUT
        if os.environ.get("DLSEARCH_DEBUG"):
            raise
        _say(f"{type(error).__name__}: {error} (DLSEARCH_DEBUG=1 shows where)")
        return FAILED


def _say(line: str) -> None:
    from dlsearch.tracking.masking import mask_text

    sys.stderr.write(f"dlsearch: {mask_text(' '.join(line.split()))}\n")


def _hydra(words: list[str]) -> int:
    import hydra

    from dlsearch.config.guard import check_words, guarded_composition
    from dlsearch.config.register import register

    check_words(words)
    register()
    # Hydra's own handler prints several lines and exits with 1; with this set it raises, and `guarded` has the word.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    codes: list[int] = []

    def task(cfg: DictConfig) -> int:
        code = guarded(lambda: run(cfg))
        if cfg.worker.join is None:  # a search knows what its workers came to
            codes.append(code)
        return code

    before, sys.argv = sys.argv, [sys.argv[0], *words]
    try:
        with guarded_composition():
            hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=CONFIG_NAME)(task)()
    finally:
        sys.argv = before
    return _after_search() if codes == [] else max(codes)


def run(cfg: DictConfig) -> int:
    """What one composed config means: a worker's service, or a training."""
    if cfg.worker.join is not None:
        from dlsearch.search.serve import serve

        return serve(cfg, foreground=False)
    from dlsearch.search.single import train

    return train(cfg)


def _after_search() -> int:
    """The end of a search: its report, and the last lines."""
    if "dlsearch.search.driver" not in sys.modules:  # --help, --cfg, --info
        return DONE
    from dlsearch.search.driver import outcome

    done = outcome()
    if done is None:
        return DONE
    from dlsearch.verbs.study import write_report

    report = None
    if not done.interrupted:
        report = write_report(done.name, done.storage_url, done.store, patience_s=done.patience_s)
    if report is not None:
        sys.stdout.write(f"report: {_relative(report / 'index.html')}\n")
    try:
        shipped = done.finish(report)
    except KeyboardInterrupt:  # the study is over: only the wait for MLflow is cut short
        shipped = False
    if not shipped:
        sys.stdout.write("tracking: not everything has reached MLflow yet; dlsearch sync ships the rest\n")
    if done.interrupted:
        return INTERRUPTED
    sys.stdout.write(f"next: dlsearch ui · dlsearch status {done.name} · dlsearch trials {done.name}\n")
    return DONE


def _relative(path: object) -> str:
    return os.path.relpath(str(path))
