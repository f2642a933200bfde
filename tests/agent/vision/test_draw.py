from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from agent.vision.detections import Detections
from agent.vision.draw import color_of, draw_caption, draw_detections, draw_mask
from agent.vision.mask import FrameMask

LABELS = ["cat", "dog"]


def detections(*boxes: tuple[float, float, float, float], label: int = 0) -> Detections:
    count = len(boxes)
    return Detections(np.array(boxes, np.float32), np.full(count, 0.87, np.float32), np.full(count, label, np.int64))


def test_drawing_changes_a_copy_where_the_box_is() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    image.flags.writeable = False
    drawn = draw_detections(image, detections((40, 50, 100, 90)), LABELS)
    assert not image.any()
    assert tuple(drawn[70, 40].tolist()) == color_of(0)
    assert tuple(drawn[90, 70].tolist()) == color_of(0)
    assert not drawn[60:85, 50:95].any(), "what is inside stays visible"
    assert drawn[30:50, 40:90].any(), "the label stands above the box"


def test_without_detections_the_picture_stays_as_it_is() -> None:
    image = np.random.default_rng(1).integers(0, 256, (50, 60, 3)).astype(np.uint8)
    np.testing.assert_array_equal(draw_detections(image, Detections.empty(), LABELS), image)


@pytest.mark.parametrize("label", [0, 1, 5])
@pytest.mark.parametrize("shape", [(120, 160, 3), (8, 8, 3), (1, 1, 3), (1080, 1920, 3)])
def test_boxes_anywhere_and_pictures_of_any_size_can_be_drawn(shape: tuple[int, int, int], label: int) -> None:
    image = np.zeros(shape, np.uint8)
    everywhere = [(0, 0, 5, 5), (shape[1] - 5, shape[0] - 5, shape[1], shape[0]), (0, 0, shape[1], shape[0])]
    drawn = draw_detections(image, detections(*everywhere, label=label), LABELS)
    assert drawn.shape == shape
    assert drawn.any()


def test_a_label_at_the_edge_is_moved_inside() -> None:
    at_edge = draw_detections(np.zeros((120, 160, 3), np.uint8), detections((158, 0, 160, 2)), LABELS)
    assert (at_edge[2:10] != 0).any(axis=(0, 2)).sum() > 30, "it is wide, though two pixels are right of the box"


def test_a_caption_stands_at_the_top_left() -> None:
    image = np.full((120, 400, 3), 255, np.uint8)
    drawn = draw_caption(image, "12 fps")
    assert (drawn[:10, :20] != 255).any()
    assert (drawn[60:] == 255).all()
    assert (image == 255).all()


def mask_over(image_wh: tuple[int, int], ids: list[list[int]], left: float = 0.0, width: float = 0.0) -> FrameMask:
    """A mask over a picture, or only over a part of its width."""
    packed = np.array(ids, np.uint8)
    cell_wh = ((width or image_wh[0]) / packed.shape[1], image_wh[1] / packed.shape[0])
    return FrameMask(packed, (left, 0.0), cell_wh, image_wh)


def test_a_mask_tints_a_copy_with_the_colours_of_its_classes() -> None:
    image = np.full((200, 160, 3), 100, np.uint8)
    image.flags.writeable = False
    drawn = draw_mask(image, mask_over((160, 200), [[0, 1]]), LABELS)
    assert (image == 100).all()
    for x, class_id in ((40, 0), (120, 1)):
        expected = 0.55 * 100 + 0.45 * np.array(color_of(class_id))
        np.testing.assert_allclose(drawn[150, x], expected, atol=1)
    np.testing.assert_array_equal(drawn[190, 0:80].std(axis=0), 0)
    assert (drawn[150, 79] != drawn[150, 80]).any(), "the border between them is where the mask has it"


def test_classes_without_a_name_are_grey() -> None:
    drawn = draw_mask(np.zeros((200, 160, 3), np.uint8), mask_over((160, 200), [[1, 2, 255, 255]]), LABELS)
    assert set(drawn[150, 60:].flatten().tolist()) == {58}, "0.45 of 128"
    assert len(set(drawn[150, 10].tolist())) > 1


def test_what_the_model_did_not_see_is_not_tinted() -> None:
    image = np.full((200, 160, 3), 100, np.uint8)
    drawn = draw_mask(image, mask_over((160, 200), [[0, 1]], left=40.0, width=80.0), LABELS)
    assert (drawn[100:, :40] == 100).all()
    assert (drawn[100:, 120:] == 100).all()
    assert (drawn[100:, 40:120] != 100).any(axis=2).all()


def test_a_legend_names_the_classes_with_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, int]] = []
    put = cv2.putText

    def recorded(canvas: object, text: str, at: tuple[int, int], *rest: object) -> object:
        written.append((text, at[1]))
        return put(canvas, text, at, *rest)  # type: ignore[call-overload]

    monkeypatch.setattr(cv2, "putText", recorded)
    image = np.full((200, 160, 3), 100, np.uint8)
    drawn = draw_mask(image, mask_over((160, 200), [[1, 1, 0, 255]]), LABELS)
    assert [text for text, _ in written] == ["dog 50.0%", "cat 25.0%", "class 255 25.0%"]
    lines = [y for _, y in written]
    (_, height), below = cv2.getTextSize("dog", cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
    assert all(y + height + below <= next_y for y, next_y in itertools.pairwise(lines)), "none hides another"
    assert tuple(drawn[1, 1].tolist()) == color_of(1)
    written.clear()
    draw_mask(image, mask_over((160, 200), [list(range(200))]), LABELS)
    assert 2 < len(written) <= 12, "no more than fit"


@pytest.mark.parametrize("shape", [(120, 160, 3), (8, 8, 3), (1, 1, 3), (1080, 1920, 3)])
def test_masks_over_pictures_of_any_size_can_be_drawn(shape: tuple[int, int, int]) -> None:
    drawn = draw_mask(np.zeros(shape, np.uint8), mask_over((shape[1], shape[0]), [[0, 255], [3, 4]]), LABELS)
    assert drawn.shape == shape
    assert drawn.any()


def test_neighbouring_classes_have_different_colours() -> None:
    colors = [np.array(color_of(label)) for label in range(20)]
    assert all(np.abs(one - other).sum() > 100 for one, other in itertools.pairwise(colors))
    assert color_of(3) == color_of(3)
