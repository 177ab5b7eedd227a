"""The command: a flat Hydra application, so that all that Hydra's users type works.

A first word that is a verb goes to :mod:`dlsearch.cli.commands`. Imports nothing heavy:
``--help``, completion and ``--cfg`` answer at once.

Exit codes: 0 done, 1 failed, 2 bad input, 75 the database was away for too long, 130 interrupted.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from dlsearch.app.session import Session, SessionTask
from dlsearch.config.compose import CONFIG_NAME, config_dir, explain
from dlsearch.console.output import ReaderGoneError, outlast_readers
from dlsearch.console.streams import masked_output
from dlsearch.console.terminal import say, warn
from dlsearch.core import permission
from dlsearch.core.errors import AWAY, ConfigError, DatabaseAwayError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from omegaconf import DictConfig

    from dlsearch.app.session import SearchOutcome

DONE = 0
FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130
LOOKS = ("status", "studies", "trials")  # verbs that read, say and end
# verbs that are over when nobody reads them
PRINTS = (*LOOKS, "plan", "predict", "describe", "doctor")


def main(argv: list[str] | None = None) -> None:
    """Run the command line `argv` (``sys.argv[1:]`` by default) and exit."""
    words = sys.argv[1:] if argv is None else argv
    with masked_output():
        code = guarded(lambda: _dispatch(words))
    sys.exit(code)


def command() -> None:
    """What is installed as ``dlsearch``: :func:`main`, as a process of its own."""
    verb = sys.argv[1] if sys.argv[1:] else ""
    outlast_readers(ends=verb in PRINTS)
    try:
        main()
    except SystemExit as end:
        with suppress(ReaderGoneError):
            sys.stdout.flush()
        sys.stderr.flush()
        if verb in LOOKS and isinstance(end.code, int):
            os._exit(end.code)  # taking every module down would be a fifth of the time
        raise


def _dispatch(words: list[str]) -> int:
    from dlsearch.cli.commands import VERBS
    from dlsearch.core.masking import learn, learn_environment

    learn(words)
    learn_environment()
    given = permission.admitted(words)
    permission.grant(given.packages, given.folders)
    if words and not words[0].startswith("-") and "=" not in words[0]:
        if words[0] not in VERBS:
            hint = did_you_mean(words[0], VERBS, "see --help")
            raise ConfigError(words[0], "is neither a verb nor an override", hint)
        if words[0] not in LOOKS:
            _say_admitted(given)
        looks_once = words[0] in LOOKS and "--follow" not in words
        with _unswept() if looks_once else nullcontext():
            return VERBS[words[0]](words[1:])
    if words in (["--help"], ["-h"]):
        from dlsearch.cli.overview import page

        say(*page().splitlines())
        return DONE
    _say_admitted(given)
    return _hydra(words)


def _say_admitted(given: permission.Admitted) -> None:
    """Say first what is admitted by a file; not on the standard output, which may be JSON."""
    say(*given.lines(), to=sys.stderr)


@contextmanager
def _unswept() -> Iterator[None]:
    """Collect no garbage: a verb that looks once ends before it matters, and imports are faster."""
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
        _say(str(explain(_read_again(error))))
        return BAD_INPUT
    except DatabaseAwayError as error:
        _say(str(error))
        return AWAY
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except SystemExit as end:
        return _exit_code_of(end)
    except ReaderGoneError:  # `dlsearch predict … | head`
        return DONE
    except RecursionError:  # of a library's, that reads what no bound of ours was before
        if os.environ.get("DLSEARCH_DEBUG"):
            raise
        _say("something that was read is nested too deeply (DLSEARCH_DEBUG=1 shows where)")
        return BAD_INPUT
    except Exception as error:
        return _explain_failure(error)


def _read_again(error: Exception) -> Exception:
    """What our own reading says of an override that Hydra cannot read: the grammar is the same."""
    from hydra.errors import OverrideParseException

    from dlsearch.space.grammar import parse_override

    if isinstance(error, OverrideParseException):
        try:
            parse_override(error.override)
        except ConfigError as ours:
            return ours
    return error


def _exit_code_of(end: SystemExit) -> int:
    """As Python itself has it: a text is an error, and nothing is none."""
    if isinstance(end.code, int):
        return end.code
    return DONE if end.code is None else FAILED


def _explain_failure(error: Exception) -> int:
    """Say in one line what no code of ours expected; returns the exit code."""
    from dlsearch.core.text import text_of

    # Hydra's word for `model=null`; it names no key
    if text_of(error).startswith("Config group override must be"):
        _say(
            "config: a group was set to null "
            "(hint: an experiment may do that; on the command line use ~group)"
        )
        return BAD_INPUT
    if os.environ.get("DLSEARCH_DEBUG"):
        raise error
    _say(f"{type(error).__name__}: {text_of(error)} (DLSEARCH_DEBUG=1 shows where)")
    return FAILED


def _say(line: str) -> None:
    from dlsearch.core.masking import mask_text

    warn(mask_text(" ".join(line.split())))


class _Task(SessionTask):
    """What Hydra calls for each config that it composes, in this process or in one of a launcher's.

    Args:
        packages: What the person at the keyboard admits; a process of a launcher's learns it here.
    """

    def __init__(self, packages: tuple[str, ...]) -> None:
        self.session = Session()
        self.codes: list[int] = []
        self._packages = packages

    def __call__(self, cfg: DictConfig) -> int:
        permission.grant(self._packages)
        outlast_readers()
        with masked_output():
            code = guarded(lambda: run(cfg, self.session))
        if cfg.worker.join is None:  # a search knows what its workers came to
            self.codes.append(code)
        return code

    def __reduce__(self) -> tuple[type[_Task], tuple[tuple[str, ...]]]:
        """Pickle without the session: processes of this one stay its own."""
        return (type(self), (self._packages,))


def _hydra(words: list[str]) -> int:
    import hydra

    from dlsearch.config.flags import spelled_out
    from dlsearch.config.guard import check_words, guarded_composition
    from dlsearch.config.register import register

    words = spelled_out(words)
    check_words(words)
    register()
    # Hydra's own handler prints several lines and exits with 1; with this set it raises, and
    # `guarded` has the word.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    task = _Task(permission.granted())
    task.session.argv = tuple(words)
    before = sys.argv
    sys.argv = [sys.argv[0], *words]
    try:
        with guarded_composition():
            start = hydra.main(
                version_base="1.3",
                config_path=str(config_dir()),
                config_name=CONFIG_NAME,
            )
            start(task)()
    finally:
        sys.argv = before
    if task.codes:
        return max(task.codes)
    if task.session.outcome is None:  # --help, --cfg, --info
        return DONE
    return _end_search(task.session.outcome)


def run(cfg: DictConfig, session: Session | None = None) -> int:
    """What one composed config means: a worker's service, or a training."""
    if cfg.worker.join is not None:
        from dlsearch.app.serve import serve

        return serve(cfg, foreground=False, session=session)
    return _train(cfg)


def _train(cfg: DictConfig) -> int:
    """Train one configuration, and say where the run is; returns the exit code."""
    from dlsearch.app.single_run import TrainingState, train
    from dlsearch.app.view import TerminalView

    codes = {
        TrainingState.COMPLETE: DONE,
        TrainingState.FAILED: FAILED,
        TrainingState.INTERRUPTED: INTERRUPTED,
    }
    outcome = train(cfg, TerminalView())
    say(f"run: {os.path.relpath(outcome.folder)}")
    return codes[outcome.state]


def _end_search(outcome: SearchOutcome) -> int:
    """The last line of a search, and its exit code."""
    if outcome.interrupted:
        return INTERRUPTED
    name = outcome.name
    say(f"next: dlsearch ui · dlsearch status {name} · dlsearch trials {name}")
    return FAILED if outcome.failed or outcome.unscored is not None else DONE
