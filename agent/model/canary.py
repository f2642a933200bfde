"""The canary: a model file that this device has not run before is loaded and replayed in a child process first.

A segfault, an illegal instruction or a hang ends the child, not the agent. What passed is remembered by digest,
ONNX Runtime version and CPU, so later starts replay in-process only.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import BundleError, EdgeAgentError, FatalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.model.bundle import Bundle
    from agent.model.manifest import Variant
    from agent.model.session import SessionOptions
    from agent.model.variants import Device

log = logging.getLogger(__name__)

_REMEMBERED = 64


class Canary:
    """Tries out unknown model files.

    Args:
        memory_path: JSON file that remembers what passed; it may be lost at the cost of another trial.
        timeout_s: a child that takes longer is killed.
    """

    def __init__(self, memory_path: Path, timeout_s: float) -> None:
        self._memory_path = memory_path
        self._timeout_s = timeout_s

    def check(
        self, bundle: Bundle, variant: Variant, device: Device, trusted_keys: Sequence[Path], options: SessionOptions
    ) -> None:
        """Return at once for a known file, else run the child.

        Raises:
            BundleError: the child failed, crashed or ran out of time.
            FatalError: this machine cannot start a process.
        """
        digests = [bundle.entry(variant.file).sha256, bundle.entry(variant.golden.file).sha256]
        mark = "/".join([*digests, device.onnxruntime, device.cpu_name, *options.providers])
        passed = self._load()
        if mark in passed:
            return
        log.info("variant %s has not run on this device before: trying it out in a child process", variant.id)
        self._run_child(bundle, variant, trusted_keys, options)
        self._save([*passed, mark][-_REMEMBERED:])

    def _run_child(
        self, bundle: Bundle, variant: Variant, trusted_keys: Sequence[Path], options: SessionOptions
    ) -> None:
        command = [sys.executable, "-m", "agent.model.canary", str(bundle.root.resolve()), variant.id]
        command += ["--threads", str(options.threads), "--providers", *options.providers]
        command += ["--trusted-keys", *(str(key.resolve()) for key in trusted_keys)]
        try:
            child = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=self._timeout_s,
                check=False,
                cwd=Path(__file__).parents[2],  # so that -m finds this very package, wherever the agent was started
                start_new_session=True,  # Ctrl-C is for the agent; a trial that it ended would count against the model
            )
        except subprocess.TimeoutExpired as err:
            raise BundleError(
                f"variant {variant.id}: its trial run did not end within {self._timeout_s:g} s and was killed; "
                "the model is refused (model.golden_timeout_s sets the limit)"
            ) from err
        except OSError as err:
            raise FatalError(f"cannot start the trial run of a model: {err.strerror}") from err
        if child.returncode < 0:
            number = -child.returncode
            raise BundleError(
                f"variant {variant.id}: its trial run was ended by signal {number} ({signal.strsignal(number)}); "
                "the model is refused"
            )
        if child.returncode != 0:
            last = (child.stderr.strip().splitlines() or ["no message"])[-1]
            raise BundleError(f"variant {variant.id}: its trial run failed: {last}")

    def _load(self) -> list[str]:
        try:
            marks = json.loads(self._memory_path.read_bytes())["passed"]
            return [str(mark) for mark in marks]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
            log.warning("%s cannot be read (%s): the model is tried out again", self._memory_path, err)
            return []

    def _save(self, marks: list[str]) -> None:
        temporary = self._memory_path.with_suffix(".tmp")
        try:
            self._memory_path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                json.dump({"passed": marks}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._memory_path)
        except OSError as err:
            log.warning("%s cannot be written (%s): the model will be tried out at each start", self._memory_path, err)


def main(arguments: Sequence[str] | None = None) -> int:
    """The child: activate without a canary; exit 0, or an error's code with its message as last line."""
    from agent.model.activate import activate
    from agent.model.session import SessionOptions

    parser = argparse.ArgumentParser(description="Load a variant and replay its golden inputs.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("variant")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--providers", nargs="+", required=True)
    parser.add_argument("--trusted-keys", type=Path, nargs="+", required=True)
    args = parser.parse_args(arguments)
    options = SessionOptions(tuple(args.providers), args.threads)
    try:
        activate(args.bundle, args.trusted_keys, options, args.variant, warm_up_runs=0)
    except EdgeAgentError as err:
        sys.stderr.write(f"{err}\n")
        return err.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
