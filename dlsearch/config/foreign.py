"""What a config file may ask for that is not dlsearch's own: it may be somebody else's.

Such a file lies in a folder that ``--config-dir``, ``--config-path`` or ``hydra.searchpath`` names.
What it says stays on this machine and in the working folder: paths lie below that folder, the store
or the data root; where studies and runs are kept or sent to, which launcher runs elsewhere and with
what commands, is said by the command line, or by the environment (``DLSEARCH_STORE``,
``DLSEARCH_DATA``, ``MLFLOW_TRACKING_URI``, …). A value that the command line gives takes the place
of the file's, and is the user's own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from dlsearch.config.resolved import MAX_EXPANSION, Expansion, Resolved, interpolates
from dlsearch.core import permission
from dlsearch.core.errors import ConfigError

Key = tuple[Any, ...]

#: Launchers whose jobs run on this machine, and open no ports on it.
_LAUNCHERS_HERE = (
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra_plugins.dlsearch_plugins.LocalLauncher",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
)
#: What a file may say of a launcher: sizes and names. Commands, folders and addresses are typed.
_LAUNCHER = re.compile(
    r"_target_|workers|n_jobs|backend|prefer|require|verbose|timeout|pre_dispatch|batch_size"
    r"|max_nbytes|mmap_mode"
    r"|timeout_min|cpus_per_task|gpus_per_node|tasks_per_node|mem_gb|nodes|name|stderr_to_stdout"
    r"|partition|qos|constraint"
    r"|exclude|gres|cpus_per_gpu|gpus_per_task|mem_per_gpu|mem_per_cpu|account|signal_delay_s"
    r"|max_num_timeout"
    r"|array_parallelism|ray\.remote\.(num_cpus|num_gpus|memory|resources\.\w+)"
)
#: A sbatch script has such a value in a line of its own; joblib evaluates `pre_dispatch`, a
#: product.
_LAUNCHER_VALUE = re.compile(r"[\w.:,+@%&|()*=-]{0,100}", re.ASCII)
#: What it may say of a sweeper. Others load what a path names (`custom_search_space`), or open a
#: database (`storage`).
_SWEEPER = re.compile(
    r"_target_|max_batch_size|n_trials|n_jobs|direction(\.\d+)?|study_name|max_failure_rate|seed"
    r"|(params|search_space|sampler)\..*"
)
#: What Hydra, or a launcher of ours, fills in.
_INTERNAL = re.compile(
    r"hydra\.(overrides|runtime|defaults)(\..*)?|hydra\.job\.(id|num|override_dirname|config_name)"
    r"|worker\.(join|session)"
    r"|hydra\.sweep\.(?!dir$|subdir$).*"
)
_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir")
_DESTINATIONS = ("tracking.uri", "study.storage")
#: Texts that hold several values: ``choice(a, b)``.
_EXPRESSIONS = ("space.", "hydra.sweeper.params.", "hydra.sweeper.search_space.")
_OURS = (
    "dlsearch.",
    "torch.",
    "torchvision.",
    "torchmetrics.",
    "pytorch_lightning.",
    "lightning.",
    "optuna.",
)
_NOT_A_FILES = "is not for a config file to say"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
#: An interpolation that may look different without Hydra's node.
_SEES_HYDRA = re.compile(r"hydra|oc\.(?!env\b)")
_ENVIRONMENT = re.compile(r"DLSEARCH_\w+|MLFLOW_TRACKING_URI")


@dataclass
class Foreign:
    """The values of the config files that are not dlsearch's own, by key; the later file wins.

    Args:
        files: For each key the file.
        any: Whether there was such a file at all: one may choose among groups, and set nothing.
    """

    files: dict[Key, str] = field(default_factory=dict)
    any: bool = False

    def add(self, content: Any, file: str) -> None:
        """Note what `file` sets.

        Args:
            content: Plain, unresolved, at the place where it is put into the config.
            file: Its name, for messages.
        """
        self.any = True
        for key, _ in leaves(content):
            self.files[key] = file

    def clear(self) -> None:
        """Another config begins."""
        _resolve_folder.cache_clear()
        self.files.clear()
        self.any = False

    def check_expansion(self, cfg: Any) -> None:
        """Refuse interpolations that would grow beyond all memory, before anybody resolves one.

        Raises:
            ConfigError: There are such in a file.
        """
        if self.any:
            _Check(Resolved(cfg), self.files, set()).check_expansion()

    def check(self, cfg: Any, overrides: Sequence[str]) -> None:
        """Check the composed config.

        Args:
            cfg: With Hydra's node.
            overrides: Of the command line.

        Raises:
            ConfigError: A file asks for something that is the user's to say.
        """
        if self.any:
            _Check(Resolved(cfg), self.files, typed_keys(overrides)).run()


@dataclass
class _Check:
    config: Resolved
    files: Mapping[Key, str]
    typed: set[str]

    def run(self) -> None:
        self._check_launcher_choice()
        folders: list[Key] = []
        for key, file in self.files.items():
            if _join_key(key) in self.typed or not self._is_there(key):
                continue
            for found in self._resolve_values(key, file):
                for below, value in leaves(found):  # an interpolation may bring a whole section
                    self._check_value((*key, *below), value, file)
            if _join_key(key) in _FOLDERS:
                folders.append(key)
        if folders:
            self._check_folders(folders)

    # -- what a value is
    def _is_there(self, key: Key) -> bool:
        node: Any = self.config.raw
        for part in key:
            if not isinstance(node, Mapping) or part not in node:
                return False  # a later file put something else there
            node = node[part]
        return node is not None and node != "???"

    def _resolve_values(self, key: Key, file: str) -> list[Any]:
        """The value as Hydra will see it, and as the task will, which has no node of Hydra's."""
        node: Any = self.config.raw
        for part in key:
            node = node[part]
        if not any(interpolates(text) for text in _find_texts(node)):
            return [node]
        views = [self.config.look]
        may_see_hydra = any(_SEES_HYDRA.search(text) for text in _find_texts(node))
        if key[0] != "hydra" and may_see_hydra:
            views.append(self.config.look_in_task)
        found = []
        for look in views:
            try:
                found.append(look(key))
            except (OmegaConfBaseException, LookupError, TypeError, ValueError) as error:
                self._check_unresolved(key, file, error)
        # What is missing until the data are known is a number; a text that is left out here is
        # looked at as it stands.
        if len(found) < len(views):
            found += _find_texts(node)
        return found

    def _check_unresolved(self, key: Key, file: str, error: Exception) -> None:
        """Refuse a value that cannot be resolved and says where something is written or sent."""
        if key[0] in ("paths", "hydra") or _join_key(key) in _DESTINATIONS:
            line = str(error).splitlines()[0]
            raise self._make_refusal(
                key,
                f"cannot be resolved: {line}",
                file,
                "give the value itself",
            ) from error

    def check_expansion(self) -> None:
        """What is resolved below is looked at first: it may be a bomb."""
        expansion = Expansion(self.config.raw)
        total = 0
        for key, file in self.files.items():
            total += expansion.size(key) if self._is_there(key) else 0
            if total > MAX_EXPANSION:
                why = f"its interpolations grow to more than {MAX_EXPANSION:,} characters"
                raise self._make_refusal(
                    key,
                    why,
                    file,
                    "a config has no such size",
                )

    # -- rules
    def _check_value(
        self,
        key: Key,
        value: Any,
        file: str,
    ) -> None:
        name = _join_key(key)
        for text in _find_texts(value):
            if _CONTROL.search(text):
                raise self._make_refusal(
                    key,
                    "holds control characters",
                    file,
                    "leave them out",
                )
        if value is None:
            return
        self._check_hydra_value(key, value, file)
        if name in _DESTINATIONS:
            self._check_destination(key, value, file)
        elif not name.startswith(("hydra.help.", "hydra.hydra_help.")) and name not in _FOLDERS:
            for text in _find_texts(value):
                self._check_place(
                    key,
                    text,
                    file,
                    many=name.startswith(_EXPRESSIONS),
                )

    def _check_hydra_value(self, key: Key, value: Any, file: str) -> None:
        """Check a value of Hydra's node, and what Hydra or a launcher fills in."""
        name = _join_key(key)
        if _INTERNAL.fullmatch(name):
            raise self._make_refusal(key, _NOT_A_FILES, file, "leave it out")
        if name == "hydra.job.chdir" and value is not False:
            raise self._make_refusal(
                key,
                _NOT_A_FILES,
                file,
                f"type {name}=true",
            )
        if name.startswith("hydra.launcher."):
            self._check_launcher(
                key,
                name.removeprefix("hydra.launcher."),
                value,
                file,
            )
        is_sweeper = name.startswith("hydra.sweeper.")
        if is_sweeper and not _SWEEPER.fullmatch(name.removeprefix("hydra.sweeper.")):
            raise self._make_refusal(
                key,
                _NOT_A_FILES,
                file,
                f"type {name}=…",
            )

    def _check_launcher(
        self,
        key: Key,
        name: str,
        value: Any,
        file: str,
    ) -> None:
        typed = f"type hydra.launcher.{name}=…"
        if not _LAUNCHER.fullmatch(name):
            raise self._make_refusal(key, _NOT_A_FILES, file, typed)
        if isinstance(value, (Mapping, list)) or not _LAUNCHER_VALUE.fullmatch(str(value)):
            raise self._make_refusal(
                key,
                f"expected a number or a word, got {value!r}",
                file,
                typed,
            )

    def _check_launcher_choice(self) -> None:
        """A launcher that takes jobs elsewhere, or opens ports, is chosen by the command line."""
        target = self.config.section("launcher").get("_target_")
        if (
            target is not None
            and target not in _LAUNCHERS_HERE
            and "hydra/launcher" not in self.typed
        ):
            chosen = self.config.raw["hydra"]["runtime"]["choices"].get("hydra/launcher")
            raise ConfigError(
                "hydra/launcher",
                "what runs elsewhere than on this machine is not for a config file to say",
                f"type hydra/launcher={chosen}",
            )

    def _check_destination(
        self,
        key: Key,
        value: Any,
        file: str,
    ) -> None:
        text = str(value)
        if text in _read_environment().values():
            return
        database = re.fullmatch(r"sqlite:///([^?#]+)", text)
        name = _join_key(key)
        variable = "MLFLOW_TRACKING_URI" if name == "tracking.uri" else "DLSEARCH_STORAGE"
        if not database or self._leads_outside(database.group(1)):
            hint = f"type {name}=…, or write ${{oc.env:{variable}}}"
            raise self._make_refusal(
                key,
                "would leave this folder, which is not for a config file to say",
                file,
                hint,
            )

    def _check_place(
        self,
        key: Key,
        text: str,
        file: str,
        *,
        many: bool,
    ) -> None:
        words = re.split(r"[\s,()\[\]{}'\"=]+", text) if many or interpolates(text) else [text]
        for word in words:
            path = re.sub(r"^(file:(//)?)+", "", word)
            if re.match(r"[A-Za-z][\w+.-]*:/", path):
                if self._is_built_by_ours(key):
                    raise self._make_refusal(
                        key,
                        f"{_shorten_text(word)!r} is an address",
                        file,
                        f"type {_join_key(key)}=…",
                    )
            elif self._leads_outside(path, always=key[0] == "paths"):
                name = _join_key(key)
                hint = (
                    f"type {name}=…, or admit the folder: "
                    "allow_paths in [tool.dlsearch] of pyproject.toml"
                )
                raise self._make_refusal(
                    key,
                    f"{_shorten_text(word)!r} lies outside the working folder",
                    file,
                    hint,
                )

    def _check_folders(self, keys: Sequence[Key]) -> None:
        """What Hydra writes into: below the store, or nothing at all."""
        run = self.config.section("run")
        sweep = self.config.section("sweep")
        sub = self.config.value(
            self.config.raw["hydra"].get("output_subdir"), ("hydra", "output_subdir")
        )
        for said_by, parts in (
            (("hydra.run.dir", "hydra.output_subdir"), (run.get("dir"), sub)),
            (
                ("hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir"),
                (sweep.get("dir"), sweep.get("subdir"), sub),
            ),
        ):
            folder = Path(*(str(part) for part in parts if part is not None))
            key = next((key for key in keys if _join_key(key) in said_by), None)
            if key is None or (sub is None and folder == Path()):
                continue  # nothing is written there
            if self._store_folder is None or not _is_inside(folder, self._store_folder):
                raise self._make_refusal(
                    key,
                    f"{_shorten_text(str(folder))!r} is not below the store",
                    self.files[key],
                    "${paths.store}/… is",
                )

    # -- places
    def _leads_outside(self, text: str, *, always: bool = True) -> bool:
        """Whether a text names a place outside the folders in which a config file may move.

        Args:
            text: It may be no path at all.
            always: Whether a single word is one.
        """
        if not text or "\0" in text:
            return False
        is_word = "/" not in text and text != ".." and not re.match(r"~[\w.-]*$", text)
        try:
            if is_word and not always and not Path(text).is_symlink():
                return False
            return not _is_inside(Path(text).expanduser(), *self._allowed_roots)
        except RuntimeError:  # there is no such user
            return True
        except OSError:  # the text is longer than any path: nothing opens it
            return False

    @cached_property
    def _allowed_roots(self) -> list[Path]:
        """The working folder, and the folders that the user or the built-in config names."""
        found = [Path.cwd()]
        for name in ("store", "data", "cache", "weights"):
            key = ("paths", name)
            if key not in self.files or f"paths.{name}" in self.typed:
                with suppress(
                    OmegaConfBaseException,
                    LookupError,
                    RuntimeError,
                ):
                    found.append(Path(str(self.config.look(key))).expanduser().absolute())
        found += [
            Path(value) for value in _read_environment().values() if Path(value).is_absolute()
        ]
        found += permission.folders()
        return [root.resolve() for root in found]

    @cached_property
    def _store_folder(self) -> Path | None:
        try:
            return Path(str(self.config.look(("paths", "store")))).expanduser().resolve()
        except (OmegaConfBaseException, LookupError):
            return None

    def _is_built_by_ours(self, key: Key) -> bool:
        """Whether the innermost object that the value belongs to is none of an admitted package."""
        node: Any = self.config.raw
        target = ""
        for part in key[:-1]:
            node = node.get(part) if isinstance(node, Mapping) else None
            if isinstance(node, Mapping) and isinstance(node.get("_target_"), str):
                target = node["_target_"]
        return not target or target.startswith(_OURS) or interpolates(target)

    def _make_refusal(
        self,
        key: Key,
        why: str,
        file: str,
        hint: str,
    ) -> ConfigError:
        return ConfigError(_join_key(key), f"{why} ({file})", hint)


def leaves(content: Any, at: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Key and value of whatever is no mapping below `content`, or of `content` itself."""
    if not isinstance(content, Mapping):
        yield at, content
        return
    for key, value in content.items():
        yield from leaves(value, (*at, key))


def typed_keys(overrides: Sequence[str]) -> set[str]:
    """The keys, and the groups, whose values the command line gives."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    found = set()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.is_delete():
            continue
        name = str(override.key_or_group)
        given = None if override.is_sweep_override() else override.value()
        found.add(name)
        found |= {_join_key((name, *key)) for key, _ in leaves(given) if key}
    return found


def _join_key(key: Key) -> str:
    return ".".join(map(str, key))


def _find_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _find_texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _find_texts(inner)


def is_inside_one(path: Path, roots: Sequence[Path]) -> bool:
    """Whether `path` lies below one of `roots`; a home that does not exist is none."""
    try:
        return _is_inside(path.expanduser(), *(root.expanduser().resolve() for root in roots))
    except RuntimeError:  # there is no such user
        return False


def _is_inside(path: Path, *roots: Path) -> bool:
    """Whether `path`, links followed, lies below one of `roots`.

    What is hidden in the working folder does not.

    Args:
        path: It need not exist.
        *roots: Resolved.
    """
    real = _resolve_path(path)
    here = Path.cwd().resolve()
    for root in roots:
        if real.is_relative_to(root):
            hidden = root == here and any(
                part.startswith(".") for part in real.relative_to(root).parts
            )
            if not hidden:
                return True
    return False


def _resolve_path(path: Path) -> Path:
    """`path` with links followed.

    Many paths of a file share their folder, which is looked at once.
    """
    if path.name in ("", "..") or path.is_symlink():
        return path.resolve()
    return _resolve_folder(path.absolute().parent) / path.name


@lru_cache(maxsize=256)
def _resolve_folder(folder: Path) -> Path:
    return folder.resolve()


def _read_environment() -> dict[str, str]:
    """What the environment says of places: it is the user's."""
    return {
        name: value for name, value in os.environ.items() if value and _ENVIRONMENT.fullmatch(name)
    }


def _shorten_text(text: str) -> str:
    return text if len(text) < 80 else f"{text[:80]}…"
