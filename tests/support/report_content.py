"""What a build tells its report, small but with every section."""

from __future__ import annotations

import base64
from typing import Any

LABEL = "<script>alert(1)</script>"
_PIXEL = bytes.fromhex(  # a PNG of one pixel
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da63f8cfc0f01f00050001ff56c72f0d"
    "0000000049454e44ae426082"
)


def report_content() -> dict[str, Any]:
    """A detector whose int8 file was refused, with 120 layers and a hostile text wherever the user has a say."""
    return {
        "schema": 1,
        "name": "shapes",
        "version": 3,
        "task": "detect",
        "labels": ["circle", LABEL],
        "cpu": "Cortex-A76",
        "provenance": {
            "source": LABEL,
            "source_sha256": "ab" * 32,
            "source_licence": None,
            "calibration_pictures": 64,
            "versions": {"edge-agent": "0.1.0", "onnxruntime": "1.23.0"},
        },
        "variants": [
            _variant("cpu-int8", "int8", 1_290_000, "f1 against fp32 is 0.420, the least is 0.95", 0.42),
            _variant("cpu-fp32", "fp32", 3_700_000, None, None),
        ],
        "stages": {
            "source": {"said": f"{LABEL} -> output", "modules": {"Conv_7": "backbone.stem"}},
            "native input": {"said": "folded", "rule": "folded", "height": 192, "width": 320},
            "pictures": {"said": "64 to calibrate", "calibration": 64, "held_out": 16, "unreadable": [LABEL]},
            "quantise": {
                "said": "120 nodes in int8",
                "float_ops_in_body": ["Gather"],
                "kernels_on_this_cpu": {"QLinearConv": 113, "Sub": 1},
                "layers": [
                    {"node": f"Conv_{number}", "op_type": "Conv", "sqnr_db": round((number * 37 % 120) / 3 - 0.4, 2)}
                    for number in range(119)
                ]
                + [{"node": f"{LABEL}$x_1$ 字", "op_type": "Gemm", "sqnr_db": -3.5}],
                "ranges": {str(number): [0.0, 1.0] for number in range(300)},
            },
            "verify": {
                "said": "fp32 matches",
                "cpu-fp32": {
                    "pictures": 16,
                    "compared": 989,
                    "controls": {"another picture": f"no partner for {LABEL}", "shuffled channels": "off by 0.3"},
                    "tolerances": {"score_floor": 0.05, "score": 0.001, "box_px": 0.05},
                },
                "cpu-int8": {"measure": "f1", "value": 0.42, "compared": 57, "least": 0.95, "refused": "f1 ..."},
            },
            "benchmark": {
                "said": "source 9.05 ms",
                "threads": 2,
                "rounds": 5,
                "onnxruntime": "1.23.0",
                "cpu": "Cortex-A76",
                "results": [
                    {"name": "source", "median_ms": 9.05, "min_ms": 8.6, "p90_ms": 11.0, "runs": 212, "ratio": 1.0},
                    {"name": "cpu-int8", "median_ms": 18.0, "min_ms": 9.4, "p90_ms": 41.0, "runs": 95, "ratio": 2.491},
                    {"name": "cpu-fp32", "median_ms": 9.62, "min_ms": 8.5, "p90_ms": 14.4, "runs": 183, "ratio": 1.128},
                ],
            },
        },
        "evaluation": {
            "title": "Average precision",
            "tables": [{"title": "cpu-fp32", "columns": ["class", "all"], "rows": [[LABEL, "0.931"]]}],
            "pictures": [{"title": "sheet", "mime": "image/png", "base64": base64.b64encode(_PIXEL).decode()}],
        },
    }


def _variant(name: str, precision: str, size_bytes: int, refused: str | None, f1: float | None) -> dict[str, Any]:
    metrics = [{"name": "f1_vs_fp32", "value": f1, "drop": 1 - f1, "cpu": "Cortex-A76"}] if f1 is not None else []
    return {
        "id": name,
        "precision": precision,
        "bytes": size_bytes,
        "packed": refused is None,
        "refused": refused,
        "metrics": metrics,
    }
