"""Who may import what, and who may do what: the structure of the code, read from the code.

Each rule is a function from a module's source to what is wrong with it. Below the rules, planted breaches
show that each of them can fail."""

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pipeline.flow

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "pipeline").rglob("*.py"))
FLOW = [module for module in MODULES if module.startswith("pipeline/flow/")]
ORDER = re.findall(r"^ {4}(\w+)\.py ", pipeline.flow.__doc__ or "", re.MULTILINE)
"""The stages, in the order in which the docstring of ``pipeline/flow/__init__.py`` draws them."""

VENDORS = frozenset(
    {"av", "cv2", "cupy", "onnxruntime", "openvino", "redis", "PyNvVideoCodec", "tensorrt", "tensorrt_rtx"}
)
TERMINAL = {
    "click": ("pipeline/cli/",),
    "rich": ("pipeline/cli/", "pipeline/status.py"),
    "structlog": ("pipeline/log.py", "pipeline/service/", "pipeline/backends/", "pipeline/cli/"),
}
OUTSIDE = {
    *("asyncio", "concurrent", "ctypes", "datetime", "http", "io", "logging"),
    *("mmap", "multiprocessing", "os", "pathlib", "pickle", "queue"),
    *("sched", "select", "selectors", "shutil", "signal", "socket", "socketserver"),
    *("sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib", "_thread"),
}
"""Standard modules that start threads, read clocks or the environment, or touch the world."""
TOUCHING = frozenset({"open", "print", "input", "exec", "eval"})
CATCH_ALL = frozenset({"Exception", "BaseException"})

Rule = Callable[[str, str], list[str]]


def imports(module: str, source: str) -> list[tuple[int, str]]:
    """Every imported name in full, with its line; also relative ones, and ``import_module("…")``."""
    package = module.removesuffix(".py").split("/")[:-1]
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parent = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{parent}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and name_of(node.func) in {"import_module", "__import__"}:
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
            found += [(node.lineno, str(name)) for name in names]
    return found


def name_of(node: ast.AST) -> str:
    """The last name of ``a.b.c``."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# ---- the rules --------------------------------------------------------------------------------------------


def flow_imports_only_what_lies_above(module: str, source: str) -> list[str]:
    stage = Path(module).stem
    above = ORDER[: ORDER.index(stage)] if stage in ORDER else []
    ours = [f"pipeline.flow.{name}" for name in above] + ["pipeline.errors"]
    wrong = []
    for line, name in imports(module, source):
        top = name.split(".")[0]
        if top == "pipeline":
            allowed = any(name == one or name.startswith(one + ".") for one in ours)
        else:
            allowed = top == "numpy" or (top in sys.stdlib_module_names and top not in OUTSIDE)
        if not allowed:
            wrong.append(f"{module}:{line}: imports {name}")
    return wrong


def flow_touches_nothing(module: str, source: str) -> list[str]:
    return [
        f"{module}:{node.lineno}: calls {node.func.id}()"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TOUCHING
    ]


def vendors_stay_in_backends(module: str, source: str) -> list[str]:
    if module.startswith("pipeline/backends/"):
        return []
    return [
        f"{module}:{line}: imports {name}"
        for line, name in imports(module, source)
        if name.split(".")[0] in VENDORS
    ]


def terminal_and_log_libraries_stay_in_their_places(module: str, source: str) -> list[str]:
    return [
        f"{module}:{line}: imports {name}"
        for line, name in imports(module, source)
        if (places := TERMINAL.get(name.split(".")[0])) and not module.startswith(places)
    ]


def only_config_and_cli_read_the_environment(module: str, source: str) -> list[str]:
    if module == "pipeline/config.py" or module.startswith("pipeline/cli/"):
        return []
    readers = {"environ", "environb", "getenv", "getenvb"}
    used = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute | ast.Name)]
    wrong = [(node.lineno, name_of(node)) for node in used if name_of(node) in readers]
    wrong += [(line, name) for line, name in imports(module, source) if name.split(".")[-1] in readers]
    return [f"{module}:{line}: reads {name}" for line, name in wrong]


def only_crew_and_cli_catch_all(module: str, source: str) -> list[str]:
    """A handler that tidies up and ends with a bare ``raise`` catches nothing."""
    if module == "pipeline/service/crew.py" or module.startswith("pipeline/cli/"):
        return []
    caught: list[tuple[int, ast.expr | None]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            end = node.body[-1]
            if not (isinstance(end, ast.Raise) and end.exc is None):
                kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                caught += [(node.lineno, kind) for kind in kinds]
        elif isinstance(node, ast.Call) and name_of(node.func) == "suppress":
            caught += [(node.lineno, kind) for kind in node.args]
    return [
        f"{module}:{line}: catches everything"
        for line, kind in caught
        if kind is None or name_of(kind) in CATCH_ALL
    ]


def only_crew_starts_threads(module: str, source: str) -> list[str]:
    if module == "pipeline/service/crew.py":
        return []
    starters = {"Thread", "Timer", "ThreadPoolExecutor", "start_new_thread"}
    return [
        f"{module}:{node.lineno}: starts a thread"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and name_of(node.func) in starters
    ]


def public_modules_say_what_they_are(module: str, source: str) -> list[str]:
    private = Path(module).stem.startswith("_") and not module.endswith(("__init__.py", "__main__.py"))
    return [] if private or ast.get_docstring(ast.parse(source)) else [f"{module}: has no docstring"]


# ---- the code keeps them ----------------------------------------------------------------------------------


def breaches(rule: Rule, modules: list[str]) -> list[str]:
    return [
        wrong for module in modules for wrong in rule(module, (ROOT / module).read_text(encoding="utf-8"))
    ]


def test_the_flow_s_docstring_draws_every_stage_once_and_no_other() -> None:
    assert sorted(ORDER) == sorted(Path(module).stem for module in FLOW if not module.endswith("__init__.py"))


def test_a_stage_imports_only_the_standard_library_numpy_errors_and_the_stages_above_it() -> None:
    assert breaches(flow_imports_only_what_lies_above, FLOW) == []


def test_the_flow_does_no_input_or_output() -> None:
    assert breaches(flow_touches_nothing, FLOW) == []


def test_vendors_are_imported_in_backends_only() -> None:
    assert breaches(vendors_stay_in_backends, MODULES) == []


def test_click_rich_and_structlog_stay_in_their_places() -> None:
    assert breaches(terminal_and_log_libraries_stay_in_their_places, MODULES) == []


def test_only_config_and_cli_read_the_environment() -> None:
    assert breaches(only_config_and_cli_read_the_environment, MODULES) == []


def test_only_the_crew_and_the_cli_catch_every_exception() -> None:
    assert breaches(only_crew_and_cli_catch_all, MODULES) == []


def test_only_the_crew_starts_threads() -> None:
    assert breaches(only_crew_starts_threads, MODULES) == []


def test_every_public_module_has_a_docstring() -> None:
    assert breaches(public_modules_say_what_they_are, MODULES) == []


# ---- and the rules can fail -------------------------------------------------------------------------------

STAGE, SERVICE = "pipeline/flow/frames.py", "pipeline/service/worker.py"


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (flow_imports_only_what_lies_above, STAGE, "import threading"),
        (flow_imports_only_what_lies_above, STAGE, "from time import monotonic"),
        (flow_imports_only_what_lies_above, STAGE, "from os import environ"),
        (flow_imports_only_what_lies_above, STAGE, "import cv2"),
        (flow_imports_only_what_lies_above, STAGE, "from pipeline import config"),
        (flow_imports_only_what_lies_above, STAGE, "from pipeline.flow.segment import Segment"),
        (flow_imports_only_what_lies_above, STAGE, "from pipeline.flow import segment"),
        (flow_imports_only_what_lies_above, STAGE, "from .batch import Batch"),
        (flow_imports_only_what_lies_above, STAGE, "def late():\n    from ..service import crew"),
        (flow_touches_nothing, STAGE, "print('hello')"),
        (vendors_stay_in_backends, SERVICE, "import av"),
        (vendors_stay_in_backends, SERVICE, "def late():\n    from redis.exceptions import RedisError"),
        (vendors_stay_in_backends, SERVICE, "import importlib\nimportlib.import_module('cupy')"),
        (terminal_and_log_libraries_stay_in_their_places, SERVICE, "import click"),
        (terminal_and_log_libraries_stay_in_their_places, SERVICE, "from rich.table import Table"),
        (terminal_and_log_libraries_stay_in_their_places, "pipeline/outbox.py", "import structlog"),
        (only_config_and_cli_read_the_environment, SERVICE, "import os\nos.environ['HOME']"),
        (only_config_and_cli_read_the_environment, SERVICE, "from os import getenv as secretly"),
        (only_crew_and_cli_catch_all, SERVICE, "try:\n    pass\nexcept Exception:\n    pass"),
        (only_crew_and_cli_catch_all, SERVICE, "try:\n    pass\nexcept (OSError, BaseException):\n    pass"),
        (only_crew_and_cli_catch_all, SERVICE, "try:\n    pass\nexcept:\n    pass"),
        (only_crew_and_cli_catch_all, SERVICE, "with contextlib.suppress(Exception):\n    pass"),
        (
            only_crew_and_cli_catch_all,
            SERVICE,
            "try:\n    pass\nexcept Exception as e:\n    raise Mine from e",
        ),
        (only_crew_starts_threads, SERVICE, "import threading\nthreading.Thread(target=print).start()"),
        (public_modules_say_what_they_are, SERVICE, "x = 1"),
    ],
)
def test_a_planted_breach_is_found(rule: Rule, module: str, source: str) -> None:
    assert len(rule(module, source)) == 1


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (flow_imports_only_what_lies_above, STAGE, "import math\nfrom collections.abc import Iterable"),
        (flow_imports_only_what_lies_above, STAGE, "from numpy.typing import NDArray"),
        (flow_imports_only_what_lies_above, STAGE, "from pipeline.errors import Closed"),
        (flow_imports_only_what_lies_above, STAGE, "from pipeline.flow.decode import Picture"),
        (vendors_stay_in_backends, "pipeline/backends/sink_redis.py", "import redis"),
        (vendors_stay_in_backends, SERVICE, "from pipeline.backends import redis_embedded"),
        (only_config_and_cli_read_the_environment, "pipeline/config.py", "import os\nos.environ"),
        (only_crew_and_cli_catch_all, SERVICE, "try:\n    pass\nexcept OSError:\n    pass"),
        (
            only_crew_and_cli_catch_all,
            SERVICE,
            "try:\n    pass\nexcept BaseException:\n    undo()\n    raise",
        ),
    ],
)
def test_what_is_allowed_is_let_pass(rule: Rule, module: str, source: str) -> None:
    assert rule(module, source) == []
