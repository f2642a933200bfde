"""Write pictures for calibration: ``python -m build_models.demo.pictures --out DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
from tqdm import tqdm

from agent.demo.scenes import random_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

CALIBRATION_SEED = 2_000_000_000  # neither training nor the held-out pictures come here
COUNT = 240


def write_pictures(folder: Path, count: int = COUNT) -> None:
    """Write so many PNG files of 320x192; what is there under the same names is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(count), desc="pictures", unit="picture"):
        image_bgr, _ = random_picture(CALIBRATION_SEED + number)
        (folder / f"{number:04d}.png").write_bytes(cv2.imencode(".png", image_bgr)[1].tobytes())


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pictures that ``configs/recipes/demo.yaml`` calibrates with."""
    parser = argparse.ArgumentParser(description="Write procedural pictures for calibration.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the PNG files")
    parser.add_argument("--count", type=int, default=COUNT)
    options = parser.parse_args(arguments)
    write_pictures(options.out, options.count)


if __name__ == "__main__":
    main()
