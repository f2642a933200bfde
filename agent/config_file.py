"""A configuration file becomes an `AgentConfig`; everything wrong with it is told at once, with line and column.

Text values may contain ``${NAME}``, ``${NAME:-default}`` (also when NAME is empty) and ``${file:/path}`` (without the
file's last line end); ``$$`` is one ``$``. A path in ``${file:...}`` may begin with ``$CREDENTIALS_DIRECTORY``, where
systemd keeps a service's secrets. What was put in is never shown in an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from agent.config import AgentConfig
from agent.config_problems import problems_of
from agent.errors import ConfigError
from agent.yaml_document import MAX_BYTES, Document, KeyPath, Position, Problem, YamlProblem, parse, scalar_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

_MOST_PROBLEMS = 20
_MAX_SECRET_BYTES = 64 * 1024


@dataclass(frozen=True)
class LoadedConfig:
    """A valid configuration, and where each of its values stands."""

    config: AgentConfig
    path: Path
    values: Mapping[KeyPath, Position]

    def locate(self, key_path: str) -> str:
        """``agent.yaml:12:5`` for ``cameras.0.source``; for a key that is not in the file, its section's place."""
        parts: KeyPath = tuple(int(part) if part.isdigit() else part for part in key_path.split("."))
        while parts not in self.values:
            parts = parts[:-1]
        return f"{self.path}:{self.values[parts].line}:{self.values[parts].column}"


def load_config(path: Path, environ: Mapping[str, str]) -> LoadedConfig:
    """Read, substitute and validate; relative paths are meant from the file's folder.

    Raises:
        ConfigError: one line a problem, ``file:line:col: key.path: what was expected, what came, what to do``.
    """
    text = _read(path)
    try:
        document = parse(text)
    except YamlProblem as err:
        raise _error(path, [err.problem]) from err
    if document.data is None:
        raise ConfigError(f"{path}:1:1: expected a configuration, the file is empty; start from configs/agent.yaml")
    if not isinstance(document.data, dict):
        raise ConfigError(f"{path}:1:1: expected keys and values such as `node: front-door`, got something else")
    substitution = _Substitution(document, environ, path.absolute().parent)
    data = substitution.of(document.data, ())
    config, problems = _validate(data, document, substitution.put_in, path.absolute().parent)
    told = {problem.key_path for problem in substitution.problems}  # what came of an empty value is no second problem
    problems = [*document.problems, *substitution.problems, *(p for p in problems if p.key_path not in told)]
    if config is None or problems:
        raise _error(path, problems)
    return LoadedConfig(config, path, document.values)


def _read(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: expected a configuration file, got a directory or device; name the file in it")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as err:
        raise ConfigError(
            f"{path}: expected a readable configuration file, got: {err.strerror}; correct the path"
        ) from err
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: expected at most {MAX_BYTES // 1024} KiB of configuration, got more; shorten it")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as err:
        line = content.count(b"\n", 0, err.start) + 1
        column = err.start - content.rfind(b"\n", 0, err.start)
        raise ConfigError(f"{path}:{line}:{column}: expected UTF-8 text, got other bytes; save it as UTF-8") from err


def _validate(
    data: object, document: Document, put_in: set[KeyPath], folder: Path
) -> tuple[AgentConfig | None, list[Problem]]:
    """Validate; a value that was put in counts as a text where a text is expected, else as YAML would read it."""
    config, errors = _try(data, folder)
    for path in {path for path in put_in for error in errors if tuple(error["loc"][: len(path)]) == path}:
        data = _with_scalar_read(data, path)
    if errors and put_in:
        config, errors = _try(data, folder)
    return config, problems_of(errors, data, document, put_in)


def _try(data: object, folder: Path) -> tuple[AgentConfig | None, list[ErrorDetails]]:
    try:
        return AgentConfig.model_validate(data, context={"folder": folder}), []
    except ValidationError as err:
        return None, err.errors(include_url=False, include_input=False)


def _with_scalar_read(data: object, path: KeyPath) -> object:
    if isinstance(data, dict):
        return {key: _with_scalar_read(value, path[1:]) if key == path[0] else value for key, value in data.items()}
    if isinstance(data, list):
        return [_with_scalar_read(value, path[1:]) if i == path[0] else value for i, value in enumerate(data)]
    return scalar_of(data) if isinstance(data, str) else data


class _Substitution:
    """Puts in what ``${...}`` stands for; remembers where."""

    _REFERENCE = re.compile(r"\$\$|\$\{(?P<inner>[^}]*)\}|\$\{")
    _VARIABLE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.DOTALL)
    _CREDENTIALS = "$CREDENTIALS_DIRECTORY"

    def __init__(self, document: Document, environ: Mapping[str, str], folder: Path) -> None:
        self.problems: list[Problem] = []
        self.put_in: set[KeyPath] = set()
        self._document = document
        self._environ = environ
        self._folder = folder

    def of(self, value: object, path: KeyPath) -> object:
        if isinstance(value, dict):
            return {key: self.of(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.of(inner, (*path, index)) for index, inner in enumerate(value)]
        if isinstance(value, str) and "$" in value:
            return self._REFERENCE.sub(lambda reference: self._meaning(reference, path), value)
        return value

    def _meaning(self, reference: re.Match[str], path: KeyPath) -> str:
        if reference[0] == "$$":
            return "$"
        self.put_in.add(path)
        inner = reference["inner"]
        try:
            if inner is None:
                raise ConfigError("expected ${NAME}, got ${ without }; close it, or write $${ for the characters")
            meaning = self._file(inner[5:]) if inner.startswith("file:") else self._variable(inner)
            if "\0" in meaning:
                raise ConfigError(f"expected a text from ${{{inner}}}, got a NUL character; correct its content")
        except ConfigError as err:
            self.problems.append(Problem(self._document.values[path], path, str(err)))
            return ""
        return meaning

    def _variable(self, inner: str) -> str:
        match = self._VARIABLE.fullmatch(inner)
        if match is None:
            raise ConfigError(f"expected ${{NAME}}, ${{NAME:-default}} or ${{file:/path}}, got ${{{inner}}}")
        value, default = self._environ.get(match["name"]), match["default"]
        if default is not None:
            return value or default[2:]
        if value is None:
            name = match["name"]
            raise ConfigError(f"environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        return value

    def _file(self, name: str) -> str:
        if name.startswith(self._CREDENTIALS):
            folder = self._environ.get(self._CREDENTIALS[1:])
            if folder is None:
                raise ConfigError(f"{self._CREDENTIALS} is not set; it needs systemd's LoadCredential=")
            name = folder + name[len(self._CREDENTIALS) :]
        path = self._folder / name
        try:
            if not path.is_file():
                raise ConfigError(f"expected a file {path}, there is none; create it or correct the path")
            with path.open("rb") as file:
                content = file.read(_MAX_SECRET_BYTES + 1)
            if len(content) > _MAX_SECRET_BYTES:
                raise ConfigError(f"expected at most {_MAX_SECRET_BYTES // 1024} KiB in {path}, got more")
            text = content.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as err:
            reason = err.strerror if isinstance(err, OSError) else "no UTF-8"
            raise ConfigError(f"expected readable text in {path}, got: {reason}") from err
        if not text:  # as a credential is that has no file of its own
            raise ConfigError(f"expected a text in {path}, it is empty; write it there")
        return text


def _error(path: Path, problems: list[Problem]) -> ConfigError:
    lines = []
    for position, key_path, message in sorted(problems[: 10 * _MOST_PROBLEMS])[:_MOST_PROBLEMS]:
        key = ".".join(str(part) for part in key_path)
        lines.append(f"{path}:{position.line}:{position.column}: {key + ': ' if key else ''}{message}")
    if len(problems) > _MOST_PROBLEMS:
        lines.append(f"{path}: and {len(problems) - _MOST_PROBLEMS} more problems")
    return ConfigError("\n".join(lines))
