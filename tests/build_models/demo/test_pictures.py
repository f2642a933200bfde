from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.demo.scenes import random_picture
from build_models.demo.evaluate import HELD_OUT_SEED, PICTURES
from build_models.demo.pictures import CALIBRATION_SEED, COUNT, main

if TYPE_CHECKING:
    from pathlib import Path


def test_the_files_hold_the_pictures_without_loss(tmp_path: Path) -> None:
    main(["--out", str(tmp_path / "new" / "folder"), "--count", "3"])
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [path.name for path in files] == ["0000.png", "0001.png", "0002.png"]
    for number, path in enumerate(files):
        read = cv2.imread(str(path))
        assert read is not None
        np.testing.assert_array_equal(read, random_picture(CALIBRATION_SEED + number)[0])


def test_calibration_and_evaluation_share_no_picture() -> None:
    calibration = range(CALIBRATION_SEED, CALIBRATION_SEED + COUNT)
    held_out = range(HELD_OUT_SEED, HELD_OUT_SEED + PICTURES)
    assert not set(calibration) & set(held_out)
