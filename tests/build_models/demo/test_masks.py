from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.demo.scenes import HIDDEN, Scene, Truth, random_picture
from build_models.demo.evaluate import HELD_OUT_SEED
from build_models.demo.masks import BACKGROUND, IGNORED, LABELS, SPLITS, class_mask, main

if TYPE_CHECKING:
    from pathlib import Path


def test_a_mask_names_the_class_of_each_object_and_not_its_number() -> None:
    boxes_xyxy = np.array(((0, 0, 2, 1), (0, 1, 1, 2), (1, 1, 2, 2)), np.float32)
    numbers = np.array(((1, 1, 0), (2, 3, HIDDEN)), np.uint8)
    truth = Truth(boxes_xyxy, np.array((4, 0, 4)), np.array((7, 8, 9)), numbers)
    expected = (
        (LABELS.index("cross"), LABELS.index("cross"), BACKGROUND),
        (LABELS.index("circle"), LABELS.index("cross"), IGNORED),
    )
    np.testing.assert_array_equal(class_mask(truth), expected)


def test_each_object_of_a_scene_is_its_class_all_over() -> None:
    _, truth = Scene(320, 192, seed=5).render(40)
    mask = class_mask(truth)
    assert len(truth.labels) > 1
    for row, label in enumerate(truth.labels.tolist()):
        assert set(mask[truth.mask == row + 1].tolist()) == {label + 1}
    np.testing.assert_array_equal(mask == BACKGROUND, truth.mask == 0)


def test_the_files_are_pictures_and_masks_of_the_same_names_and_losslessly_so(tmp_path: Path) -> None:
    main(["--out", str(tmp_path), "--count", "2"])
    for split, (seed, _) in SPLITS.items():
        files = sorted(path.relative_to(tmp_path / split).as_posix() for path in (tmp_path / split).rglob("*.png"))
        assert files == ["images/0000.png", "images/0001.png", "masks/0000.png", "masks/0001.png"]
        image_bgr, truth = random_picture(seed + 1)
        np.testing.assert_array_equal(cv2.imread(str(tmp_path / split / "images" / "0001.png")), image_bgr)
        read = cv2.imread(str(tmp_path / split / "masks" / "0001.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(read, class_mask(truth))


def test_training_calibration_judgement_and_the_held_out_pictures_share_none() -> None:
    (train, train_count), (val, _) = SPLITS["train"], SPLITS["val"]
    assert 99 * 10_000_000 < HELD_OUT_SEED < HELD_OUT_SEED + 10_000 < train < train + train_count <= val
