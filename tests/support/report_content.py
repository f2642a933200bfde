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
    """A detector with files of every outcome, 120 layers, and a hostile text wherever the user has a say."""
    return {
        "schema": 1,
        "name": "shapes",
        "version": 3,
        "task": "detect",
        "labels": ["circle", LABEL],
        "cpu": "Cortex-A76",
        "budget": {"metric": "auto", "max_drop": 0.01, "min_speedup": None, "inconclusive": "ship"},
        "provenance": {
            "source": LABEL,
            "source_sha256": "ab" * 32,
            "source_licence": None,
            "calibration_pictures": 64,
            "versions": {"edge-agent": "0.1.0", "onnxruntime": "1.23.0"},
        },
        "variants": [
            _variant("trt-int8", "int8", 1_300_000, None, 0.612),
            _variant("cpu-int8-vnni", "int8", 1_310_000, None, 0.606),
            _variant("cpu-int8", "int8", 1_290_000, f"beyond the budget of {LABEL}", 0.42),
            _variant("cpu-fp32", "fp32", 3_700_000, None, 0.611),
        ],
        "stages": {
            "source": {"said": f"{LABEL} -> output", "modules": {"Conv_7": "backbone.stem"}},
            "native input": {"said": "folded", "rule": "folded", "height": 192, "width": 320},
            "pictures": {
                "said": "64 to calibrate",
                "calibration": {"pictures": 64, "labelled": True, "sha256": "cd" * 32},
                "search": {"pictures": 32, "labelled": True, "sha256": "ce" * 32},
                "val": {"pictures": 48, "labelled": True, "sha256": "cf" * 32},
            },
            "verify": {
                "said": "fp32 matches",
                "cpu-fp32": {
                    "pictures": 16,
                    "compared": 989,
                    "controls": {"another picture": f"no partner for {LABEL}", "shuffled channels": "off by 0.3"},
                    "tolerances": {"score_floor": 0.05, "score": 0.001, "box_px": 0.05},
                },
            },
            "calibrate": {
                "said": "184 tensors",
                "joins": [{"node": "Concat_264", "tensors": ["boxes", LABEL], "ratio": 15.28}],
                "ranges": {str(number): [0.0, 1.0] for number in range(300)},
            },
            "search": _search(),
            "judge": {
                "said": "judged",
                "metric": "map50_95",
                "labelled": True,
                "limit": 0.01,
                "trt-int8": _judged("within", -0.001, -0.004, 0.002),
                "cpu-int8-vnni": _judged("inconclusive", 0.005, -0.013, 0.02, 88),
                "cpu-int8": _judged("beyond", 0.191, 0.15, 0.23),
            },
            "benchmark": {
                "said": "source 9.05 ms",
                "threads": 2,
                "rounds": 5,
                "onnxruntime": "1.23.0",
                "cpu": "Cortex-A76",
                "results": [
                    {"name": "source", "median_ms": 9.05, "min_ms": 8.6, "p90_ms": 11.0, "runs": 212, "ratio": 1.0},
                    {"name": "cpu-int8-vnni", "median_ms": 4.81, "min_ms": 4.4, "p90_ms": 6.0, "runs": 9, "ratio": 0.5},
                    {"name": "cpu-int8", "median_ms": 18.0, "min_ms": 9.4, "p90_ms": 41.0, "runs": 95, "ratio": 2.5},
                    {"name": "cpu-fp32", "median_ms": 9.62, "min_ms": 8.5, "p90_ms": 14.4, "runs": 183, "ratio": 1.128},
                ],
                "unused_figures": [f"--measured, {LABEL}: another file"],
                "speed": [
                    {
                        "variant": "cpu-int8-vnni",
                        "arch": "x86_64",
                        "speedups": {"this machine": 2.0, LABEL: 1.8},
                        "refused": None,
                    },
                    {"variant": "cpu-int8", "arch": "aarch64", "speedups": {}, "refused": None},
                    {
                        "variant": "cpu-int8",
                        "arch": "x86_64",
                        "speedups": {"this machine": 0.53},
                        "refused": "not faster than fp32 on this machine: 0.53x its speed; fp32 serves there",
                    },
                ],
            },
        },
        "evaluation": {
            "title": "Average precision",
            "tables": [{"title": "cpu-fp32", "columns": ["class", "all"], "rows": [[LABEL, "0.931"]]}],
            "pictures": [{"title": "sheet", "mime": "image/png", "base64": base64.b64encode(_PIXEL).decode()}],
        },
    }


def _search() -> dict[str, Any]:
    """Of one variant everything, of the other an attempt that keeps nothing."""
    kinds = ("mse", "mse, equalised", "mse, equalised, 2 nodes in float", "mse, equalised, 3 nodes in float")
    attempts = [
        _attempt(said, index, drop, share, [LABEL, "Relu_1", "Conv_9"][: max(index, 0)], speedup)
        for index, (said, drop, share, speedup) in enumerate(
            zip(kinds, (0.013, 0.5, 0.002, 0.0021), (0.0, 0.0, 0.02, 0.03), (2.1, None, 1.9, 1.8), strict=True)
        )
    ]
    attempts.append(attempts[2])
    layers = [
        {"node": f"Conv_{number}", "op_type": "Conv", "sqnr_db": round((number * 37 % 120) / 3 - 0.4, 2)}
        for number in range(119)
    ]
    return {
        "said": "cpu-int8-vnni: mse",
        "metric": "map50_95",
        "variants": {
            "cpu-int8-vnni": {
                "attempts": attempts,
                "chosen": attempts[2]["sha256"],
                "closest": attempts[2]["sha256"],
                "limit": 0.01,
                "aim": 0.005,
                "sensitivities": [
                    {"site": f"{LABEL}{number}", "kind": "weight", "sqnr_db": 25.0 + number, "gone": number == 0}
                    for number in range(20)
                ],
                "reasons": {LABEL: f"rounding the weight {LABEL} alone leaves 25.0 dB at the heads"},
                "inside": {
                    "pictures": 8,
                    "layers": [*layers, {"node": f"{LABEL}$x_1$ 字", "op_type": "Gemm", "sqnr_db": -3.5}],
                    "kernels": {
                        "operators": {"QLinearConv": 113, "Sub": 1},
                        "nodes": 120,
                        "fused_activations": 0,
                        "integer": 113,
                        "float_convolutions": 2,
                        "quantise": 3,
                        "dequantise": 4,
                        "float_islands": [["Gather", "Mul"], ["Gather", "Mul"]],
                        "transposes": 0,
                        "reorders": 0,
                    },
                },
            },
            "cpu-int8": {
                "attempts": [_attempt("mse", 9, 0.3, 0.0, [], None)],
                "chosen": None,
                "closest": "9" * 64,
                "limit": 0.01,
                "aim": 0.01,
                "sensitivities": [],
                "reasons": {},
            },
        },
        "forms": {
            "cpu-fp32": {"median_ms": 9.6, "speedup": 1.0},
            "plain": {"median_ms": 4.8, "speedup": 2.0},
            "packed stem": {"median_ms": 12.0, "speedup": 0.8},
        },
        "equalised": [
            {"tensor": LABEL, "kind": "clip", "channels": 24, "spread_before": 9.1, "spread_after": 1.2, "gain_db": 6.2}
        ],
        "cpu-int8-dynamic": f"there is no matrix product in {LABEL}",
    }


def _attempt(
    said: str, index: int, drop: float, share: float, in_float: list[str], speedup: float | None
) -> dict[str, Any]:
    choice = {"method": "mse", "equalized": index > 0, "bias": False, "float_nodes": in_float, "form": "plain"}
    return {
        "said": said,
        "choice": choice,
        "sha256": str(index) * 64,
        "bytes": 1_290_000 + index,
        "drop": _drop(drop, drop - 0.01, drop + 0.01, 32),
        "agreement": _drop(drop / 2, 0.0, drop, 32),
        "good": drop < 0.005,
        "float_share": share,
        "latency": {"here": {"median_ms": 4.2, "speedup": speedup}} if speedup else {},
    }


def _judged(outcome: str, value: float, low: float, high: float, more_pictures: int = 0) -> dict[str, Any]:
    said = f"map50_95 {0.611:.4f} -> {0.611 - value:.4f}, drop {value:+.4f}"
    return {"outcome": outcome, "said": said, "more_pictures": more_pictures, **_drop(value, low, high, 48)}


def _drop(value: float, low: float, high: float, pictures: int) -> dict[str, Any]:
    return {
        "value": value,
        "low": low,
        "high": high,
        "reference": 0.611,
        "candidate": 0.611 - value,
        "pictures": pictures,
        "method": "bootstrap",
    }


def _variant(name: str, precision: str, size_bytes: int, refused: str | None, value: float) -> dict[str, Any]:
    return {
        "id": name,
        "precision": precision,
        "providers": ["tensorrt"] if name == "trt-int8" else ["cpu"],
        "bytes": size_bytes,
        "packed": refused is None,
        "refused": refused,
        "advice": [f"more pictures of {LABEL}"] if refused else [],
        "metrics": [{"name": "map50_95", "value": value, "drop": 0.611 - value, "cpu": "Cortex-A76"}],
    }
