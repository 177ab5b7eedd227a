"""What a process does to the world outside, as Python's audit events tell it.

The hook is installed in the child that runs a command, before the command begins, and, by
``hook/sitecustomize.py``, in each Python that it starts. It writes one line of JSON for each event
that no command may cause. What is no event (a file that a C library opens) is seen by
:mod:`tests.security.foreign.watch`.

Only the standard library is imported here.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

#: All code in the corpus holds this word, and raises the audit event of this name when it runs.
TOKEN = "F0RE1GN"
#: An expression that says that it ran; fit for `eval`, `exec`, sympy, and the body of a module.
RAN = f"__import__('sys').audit('{TOKEN}')"
#: Modules that a command never needs to import: each is made beside the input.
MODULES = ("foreign_module", "foreign_package", "foreign_plugin")

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_O_PATH = getattr(os, "O_PATH", 0)
#: Programs that a command may start: their settings in a folder of somebody else's are another kind
#: of input.
_PROGRAMS = ("git", "uname", "ldconfig", "nvidia-smi", "gcc", "cc", "lscpu", "fc-list")
_PYTHONS = ("dlsearch.", "mlflow")
#: Names that a pickle of ours, between processes of ours, or of a library's own data, may hold.
_PICKLED = (
    "dlsearch",
    "numpy",
    "omegaconf",
    "collections",
    "copyreg",
    "datetime",
    "torch",
    "multiprocessing",
    "sklearn",
)
#: Settings of this machine that libraries read for themselves.
_SETTINGS = (
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/os-release",
    "/etc/debian_version",
    "/etc/lsb-release",
    "/etc/ssl",
    "/etc/apache2/mime.types",
    "/etc/httpd",
    "/etc/machine-id",
)
_PRIVATE_PROC = ("environ", "mem", "root", "cwd")


class Rules:
    """What is inside for one command.

    Args:
        box: The folder with the sandbox: ``work`` (the current folder), ``home``, ``tmp``,
            ``data``, ``outside``.
        readable: Folders that may be read: the interpreter, the checkout, the data.
        writable: Folders and files below the box that may be written, relative to it.
    """

    def __init__(self, box: str, readable: list[str], writable: list[str]) -> None:
        self.box = os.path.realpath(box)
        self.private = [
            f"{self.box}/{name}"
            for name in ("outside", "work/private.txt", "home/.bashrc", "home/.ssh")
        ]
        # by the last one a user's own checkpoints are known
        own = ["home/.local/state/dlsearch"]
        inside = ["work", "tmp", "data", "home/.cache", "home/.config", "home/.netrc", *own]
        self.readable = [os.path.realpath(each) for each in readable] + [
            f"{self.box}/{each}" for each in inside
        ]
        always = ["tmp", "home/.cache", "home/.config/matplotlib", *own]
        self.writable = [os.path.realpath(f"{self.box}/{each}") for each in [*writable, *always]]
        # A place that is a link in somebody else's store is no place to write, wherever the link
        # leads.
        self.writable = [each for each in self.writable if each.startswith(f"{self.box}/")]

    def may_read(self, path: str) -> bool:
        """Whether the file at `path`, with all links followed, may be read."""
        real = os.path.realpath(path)
        if _is_below(real, self.private):
            return False
        if real.startswith("/proc/"):
            return real.rsplit("/", 1)[-1] not in _PRIVATE_PROC and "/fd/" not in real
        return (
            _is_below(real, self.readable)
            or real.startswith(("/usr/", "/lib", "/sys/", "/dev/"))
            or _is_below(real, _SETTINGS)
        )

    def may_write(self, path: str, *, follow: bool = True) -> bool:
        """Whether the file at `path` may be written; without `follow` the name itself, which may be a link."""
        real = os.path.realpath(path) if follow else _real_name(path)
        if _is_below(real, self.private):
            return False
        if real.startswith("/proc/"):
            return real.endswith("/autogroup")  # how processes share the processor
        if not real.startswith(f"{self.box}/") and (
            "/__pycache__/" in real or real.endswith("/__pycache__")
        ):
            return _is_below(real, self.readable)
        return (
            _is_below(real, self.writable)
            or real in ("/dev/null", "/dev/tty")
            or real.startswith("/dev/shm/")
        )


def install(rules: Rules, log: str) -> None:
    """Have what this process does outside of `rules` written to the file `log`, from now on and for good."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.set_inheritable(descriptor, False)
    judge = Judge(rules)
    busy = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy:
            return
        look = judge.events.get(event)
        if look is None:
            return
        busy = True  # what the hook itself does is no act of the command's
        try:
            found = look(*arguments)
            if found is not None:
                line = {
                    "what": found[0],
                    "event": event,
                    "detail": str(found[1])[:300],
                    "at": _where(),
                }
                os.write(descriptor, json.dumps(line).encode() + b"\n")
        except Exception as error:  # an event of another form: better told than passed over
            line = {"what": "harness", "event": event, "detail": repr(error), "at": _where()}
            os.write(descriptor, json.dumps(line).encode() + b"\n")
        finally:
            busy = False

    sys.addaudithook(hook)


def install_here() -> None:
    """Install the hook as the environment says; called in the Pythons that a command starts."""
    settings = json.loads(os.environ["FOREIGN_RULES"])
    install(Rules(settings["box"], settings["readable"], settings["writable"]), settings["log"])


Finding = tuple[str, Any] | None


class Judge:
    """The rule for each event: None, or what kind of act it is and on what."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.events: dict[str, Callable[..., Finding]] = {
            TOKEN: lambda *_: ("execute", "code of the input ran"),
            "open": self._open,
            "sqlite3.connect": self._database,
            "sqlite3.enable_load_extension": lambda *_: ("execute", "load_extension"),
            "sqlite3.load_extension": lambda *_: ("execute", "load_extension"),
            "os.remove": self._remove,
            "os.rmdir": self._remove,
            "os.rename": self._rename,
            "os.link": lambda source, target, *_: self._write_name(target) or self._read(source),
            "os.symlink": lambda _, target, *rest: self._write_name(target),
            "os.mkdir": lambda path, _, folder=-1: self._write_name(_at(path, folder)),
            "os.truncate": lambda path, *_: self._write(path),
            "os.chmod": lambda path, _, folder=-1: self._write(_at(path, folder)),
            "os.chown": lambda path, *_: self._write(path),
            "os.utime": lambda path, *_: self._write(path),
            "os.setxattr": lambda path, *_: self._write(path),
            "os.listdir": self._list,
            "os.scandir": self._list,
            "subprocess.Popen": lambda program, arguments, *_: self._program(program, arguments),
            "os.exec": lambda program, arguments, _: self._program(program, arguments),
            "os.posix_spawn": lambda program, arguments, _: self._program(program, arguments),
            "os.system": lambda command: ("execute", command),
            "pty.spawn": lambda arguments: ("execute", arguments),
            "os.spawn": lambda _, program, *rest: ("execute", program),
            "exec": self._exec,
            "compile": self._compile,
            "import": self._import,
            "ctypes.dlopen": self._library,
            "pickle.find_class": self._unpickle,
            "os.putenv": self._environment,
            "socket.connect": lambda _, address: self._connect(address),
            "socket.sendto": lambda _, address: self._connect(address),
            "socket.bind": lambda _, address: self._connect(address, serve=True),
            "socket.getaddrinfo": lambda host, *_: self._host(host),
            "socket.gethostbyname": self._host,
            "urllib.Request": lambda url, *_: ("connect", url),
            "smtplib.connect": lambda _, host, port: ("connect", f"{host}:{port}"),
            "ftplib.connect": lambda _, host, port: ("connect", f"{host}:{port}"),
        }

    # -- files -------------------------------------------------------------------------------------------------------
    def _open(self, path: Any, mode: Any, flags: Any) -> Finding:
        if not isinstance(path, str | bytes | os.PathLike):
            return None  # a descriptor: it was opened before
        name = _text(path)
        if isinstance(flags, int) and flags & os.O_NOFOLLOW and os.path.islink(name):
            return None  # the system refuses it
        if isinstance(flags, int) and flags & _O_PATH:
            return None  # nothing is read or written by such a descriptor
        if isinstance(flags, int) and flags & _WRITING:
            return self._write(name)
        real = os.path.realpath(name)
        if (
            real.startswith(f"{self.rules.box}/")
            and real.endswith((".py", ".pyc", ".so"))
            and _imports()
        ):
            return ("execute", f"{name} is imported")
        return self._read(name)

    def _read(self, path: Any) -> Finding:
        return None if self.rules.may_read(_text(path)) else ("read", _text(path))

    def _write(self, path: Any) -> Finding:
        if isinstance(path, int):
            return None
        return None if self.rules.may_write(_text(path)) else ("write", _text(path))

    def _write_name(self, path: Any) -> Finding:
        name = _text(path)
        if os.path.isdir(name):
            return None  # it is there already: nothing is made
        return None if self.rules.may_write(name, follow=False) else ("write", name)

    def _remove(self, path: Any, folder: int = -1) -> Finding:
        name = _at(path, folder)
        return None if self.rules.may_write(name, follow=False) else ("delete", name)

    def _rename(
        self, source: Any, target: Any, source_folder: int = -1, target_folder: int = -1
    ) -> Finding:
        return self._remove(source, source_folder) or self._write_name(_at(target, target_folder))

    def _list(self, path: Any) -> Finding:
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        real = os.path.realpath(_text(path))
        return ("read", f"names in {real}") if _is_below(real, self.rules.private) else None

    def _database(self, path: Any) -> Finding:
        name = _text(path)
        if name in (":memory:", ""):
            return None
        if name.startswith("file:"):
            from urllib.parse import unquote

            name = unquote(name.removeprefix("file:").partition("?")[0])
            name = f"/{name.lstrip('/')}" if name.startswith("/") else name
        return self._read(name) if self.rules.may_write(name) else ("write", f"database {name}")

    # -- code --------------------------------------------------------------------------------------------------------
    def _program(self, program: Any, arguments: Any) -> Finding:
        words = (
            [_text(each) for each in arguments]
            if isinstance(arguments, list | tuple)
            else _text(arguments).split()
        )
        name = os.path.basename(_text(program) if program is not None else words[0])
        if name.startswith("python"):
            module = words[words.index("-m") + 1] if "-m" in words else ""
            tracker = "-c" in words and words[words.index("-c") + 1].startswith(
                "from multiprocessing."
            )
            return None if module.startswith(_PYTHONS) or tracker else ("execute", words)
        if name in _PROGRAMS and not any(TOKEN in word for word in words):
            return None
        return ("execute", words)

    def _exec(self, code: Any) -> Finding:
        name = getattr(code, "co_filename", "")
        if os.path.isabs(name) and os.path.realpath(name).startswith(f"{self.rules.box}/"):
            return ("execute", name)
        return ("execute", f"{name}: {TOKEN}") if _holds(code) else None

    def _compile(self, source: Any, name: Any) -> Finding:
        if isinstance(source, bytes):
            source = source.decode("utf-8", "replace")
        if (
            isinstance(source, str)
            and TOKEN in source
            and "tests/security/foreign" not in _text(name or "")
        ):
            return ("execute", f"{_text(name)}: {source[:100]}")
        return None

    def _import(self, module: Any, name: Any, *_: Any) -> Finding:
        if str(module).partition(".")[0] in MODULES:
            return ("execute", f"import {module}")
        return None

    def _library(self, name: Any) -> Finding:
        if not isinstance(name, str | bytes) or "/" not in _text(name):
            return None  # looked for where the system keeps its libraries
        real = os.path.realpath(_text(name))
        return ("execute", f"dlopen {real}") if real.startswith(f"{self.rules.box}/") else None

    def _unpickle(self, module: Any, name: Any) -> Finding:
        if str(module).partition(".")[0] in _PICKLED:
            return None
        if module == "builtins" and name in (
            "set",
            "frozenset",
            "slice",
            "complex",
            "bytearray",
            "list",
            "dict",
            "tuple",
        ):
            return None
        if module in ("pathlib", "_codecs", "random", "pickle") and name in (
            "PosixPath",
            "encode",
            "Random",
        ):
            return None
        return ("unpickle", f"{module}.{name}")

    def _environment(self, name: Any, value: Any) -> Finding:
        return ("environment", f"{_text(name)}={_text(value)}") if TOKEN in _text(value) else None

    # -- network -----------------------------------------------------------------------------------------------------
    def _connect(self, address: Any, *, serve: bool = False) -> Finding:
        if isinstance(address, str | bytes):
            name = _text(address)
            if not name or name.startswith(("\0", "/run/", "/var/run/")):
                return None
            return None if self.rules.may_write(name) else ("connect", name)
        if serve and isinstance(address, tuple) and address[0] in ("127.0.0.1", "localhost", "::1"):
            return None
        return ("connect", address)

    def _host(self, host: Any) -> Finding:
        known = (
            None,
            "",
            "localhost",
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            __import__("socket").gethostname(),
        )
        return None if host is None or _text(host) in known else ("connect", host)


def _is_below(path: str, folders: Any) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in folders)


def _real_name(path: str) -> str:
    return os.path.join(
        os.path.realpath(os.path.dirname(os.path.abspath(path))), os.path.basename(path.rstrip("/"))
    )


def _text(path: Any) -> str:
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    return os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else str(path)


def _at(path: Any, folder: Any) -> str:
    name = _text(path)
    if os.path.isabs(name) or not isinstance(folder, int) or folder < 0:
        return name
    return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)


def _imports() -> bool:
    """Whether the file is being opened by Python's import system, not read as a text."""
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _holds(code: Any, depth: int = 3) -> bool:
    for each in getattr(code, "co_consts", ()):
        if each == TOKEN or (isinstance(each, str) and TOKEN in each):
            return "tests/security/foreign" not in code.co_filename
        if depth and hasattr(each, "co_consts") and _holds(each, depth - 1):
            return True
    return False


def _where() -> str:
    """The innermost frames outside of this file, for whoever reads why a test failed."""
    frame: Any = sys._getframe(1)
    found: list[str] = []
    while frame is not None and len(found) < 14:
        if frame.f_code.co_filename != __file__ and not frame.f_code.co_filename.startswith(
            "<frozen"
        ):
            found.append(
                f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}:{frame.f_code.co_name}"
            )
        frame = frame.f_back
    return " < ".join(found)
