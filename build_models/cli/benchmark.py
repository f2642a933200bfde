"""``build-models benchmark WHAT``: forms of one model and runtimes against each other."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_models.cli.input_options import declare_preparation, preparation_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from build_models.contenders.forms import Entrants

SAID = "time a model in several forms and runtimes"
_PREPROCESSING = "preparing pictures is not included: each gets its input as its usual caller feeds it"
_NAME_WIDTH = 24
_CALIBRATION_PICTURES = 64


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = (
        "Time a model as it came, with free axes, optimised, in int8, in torch and in OpenVINO where they are "
        "installed: a process each, in turn, threads alike, nobody spinning. The first row is what ratios refer to. "
        "A winner is named only when the spreads do not overlap."
    )
    parser.add_argument("what", type=Path, metavar="MODEL|RECIPE", help="an .onnx file, or a recipe (.yaml)")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a bundle's variants compete too")
    parser.add_argument("--trusted-key", type=Path, action="append", default=[], metavar="PEM", help="for --bundle")
    parser.add_argument("--torch", metavar="MODULE:FUNCTION", help="returns the module that the .onnx file is of")
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="pictures for int8 (default: noise)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="turns of each (default: 10)")
    parser.add_argument("--seconds", type=float, default=0.5, metavar="S", help="length of a turn (default: 0.5)")
    parser.add_argument("--threads", type=int, metavar="N", help="of each runtime (default: one per physical core)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="bars with spread, as .svg, .png or .pdf")
    declare_preparation(parser)


def run(args: argparse.Namespace) -> int:
    """Let them compete."""
    from agent.model.runtime import available_providers, ort
    from agent.model.session import physical_cores
    from agent.model.variants import this_device
    from build_models.benchmark import compare_latency
    from build_models.contenders.figures import winner
    from build_models.contenders.plot import plot_benchmark
    from build_models.errors import RecipeError
    from build_models.look.compare_plot import check_plot_path
    from build_models.progress import Progress

    threads = physical_cores() if args.threads is None else args.threads
    for name, value in (("--threads", threads), ("--rounds", args.rounds), ("--seconds", args.seconds)):
        if value <= 0:
            raise RecipeError(f"{name}: expected more than 0, got {value:g}")
    if args.plot:
        check_plot_path(args.plot)
    progress = Progress(2)
    with tempfile.TemporaryDirectory(prefix="build-models-") as scratch:
        with progress.stage("contenders") as ended:
            entrants = _entrants(args, Path(scratch))
            ended(", ".join(each.name for each in entrants.contenders))
        with progress.stage("rounds") as ended:
            steps = compare_latency(entrants.contenders, threads, args.rounds, args.seconds)
            *_, told = progress.track(steps, args.rounds + 1, "round")
            ended(f"{args.rounds} of {args.seconds:g} s for each")
    device = this_device(ort.__version__, available_providers())
    fastest, said = winner(told["results"], args.rounds)
    told = {
        "schema": 1,
        "device": {"arch": device.arch, "cpu": device.cpu_name, "features": sorted(device.cpu_features)},
        **told,
        "preprocessing": _PREPROCESSING,
        "left_out": entrants.left_out,
        "winner": fastest,
        "said": said,
    }
    sys.stdout.write(json.dumps(told, indent=1) + "\n" if args.json else _table(told))
    if args.plot:
        plot_benchmark(told, args.plot, f"{args.what.name} on {device.cpu_name}, {threads} threads")
    return 0


def _entrants(args: argparse.Namespace, scratch: Path) -> Entrants:
    from build_models.contenders.forms import Entrants, add_bundle

    entrants = Entrants()
    if args.what.suffix.lower() in (".yaml", ".yml"):
        _add_recipe(entrants, args, scratch)
    else:
        _add_onnx(entrants, args, scratch)
    if args.bundle is not None:
        add_bundle(entrants, args.bundle, args.trusted_key)
    return entrants


def _add_onnx(entrants: Entrants, args: argparse.Namespace, scratch: Path) -> None:
    from agent.errors import EdgeAgentError
    from build_models.contenders.forms import (
        OURS,
        OURS_INT8,
        add_our_forms,
        add_plain_forms,
        add_torch,
        fixed_shapes,
    )
    from build_models.graph.model_io import inputs_of
    from build_models.look.model_file import read_model
    from build_models.look.samples import input_recipe
    from build_models.recipe import TorchSource
    from build_models.source.onnx_import import import_onnx

    model = read_model(args.what)
    how = preparation_of(args)
    infos = inputs_of(model)
    shapes = fixed_shapes(infos, how.size_wh, how.layout or "nchw")
    if args.torch:
        source = TorchSource(kind="torch", callable=args.torch, python_path=Path())
        add_torch(entrants, source, None, args.what, shapes)
    add_plain_forms(entrants, model, args.what, shapes, scratch)
    try:
        recipe = input_recipe(infos[0], how)
        imported, _ = import_onnx(args.what, recipe)
    except EdgeAgentError as err:
        for name in (OURS, OURS_INT8):
            entrants.leave_out(name, err)
        return
    images = _pictures(_folder(args.calibration), recipe.spec(recipe.height or 0, recipe.width or 0))
    add_our_forms(entrants, imported, recipe, images, scratch)


def _add_recipe(entrants: Entrants, args: argparse.Namespace, scratch: Path) -> None:
    import onnx

    from build_models.contenders.forms import add_our_forms, add_plain_forms, add_torch
    from build_models.graph.canonical_output import canonical_output
    from build_models.graph.model_io import inputs_of
    from build_models.recipe_file import load_recipe
    from build_models.source.load import load_source

    recipe = load_recipe(args.what)
    source, _ = load_source(recipe)
    path = scratch / "source.onnx"
    onnx.save(source, path)
    (info,) = inputs_of(source)
    shape = [side for side in info.shape if isinstance(side, int)]
    if recipe.source.kind == "torch":
        add_torch(entrants, recipe.source, _plain_weights(recipe.source, scratch), path, {info.name: shape})
    add_plain_forms(entrants, source, path, {info.name: shape}, scratch)
    height_axis = 2 if recipe.input.layout == "nchw" else 1
    spec = recipe.input.spec(shape[height_axis], shape[height_axis + 1])
    data = _folder(args.calibration) or (recipe.data.train if recipe.data else None)
    images = _pictures(data, spec, recipe.labels, recipe.task)

    def canonical(model: onnx.ModelProto, size_hw: tuple[int, int]) -> tuple[onnx.ModelProto, list[str]]:
        result, told = canonical_output(model, recipe.output, size_hw, recipe.labels)
        return result, list(told.raw_tensors.values())

    add_our_forms(entrants, source, recipe.input, images, scratch, canonical)


def _pictures(config: Any, spec: Any, labels: Sequence[str] = (), task: Any = "classify") -> Any:
    """At most 64 pictures of a dataset, prepared; None without one: its labels are of no use here."""
    from build_models.data.dataset import load_dataset
    from build_models.pictures import Pictures

    if config is None:
        return None
    pictures = Pictures(load_dataset(config, labels, task), spec)
    return [picture.input_image for picture in pictures.first(_CALIBRATION_PICTURES)]


def _folder(path: Path | None) -> Any:
    from build_models.data.formats import Pictures

    return None if path is None else Pictures(format="pictures", path=path, limit=_CALIBRATION_PICTURES)


def _plain_weights(source: Any, scratch: Path) -> Path | None:
    """The state dict as torch itself loads it, whatever the user's file wraps it in."""
    if source.weights is None:
        return None
    import torch

    from build_models.source.torch_export import load_module

    path = scratch / "weights.pt"
    torch.save(load_module(source)[0].state_dict(), path)
    return path


def _table(told: Mapping[str, Any]) -> str:
    heads = f"{'':<{_NAME_WIDTH}} {'median':>9} {'quartiles':>17} {'ratio':>7} {'95 % interval':>15}"
    lines = [f"{heads} {'memory':>8} {'file':>8}  input\n"]
    for each in told["results"]:
        quartiles = f"{each['q25_ms']:.2f}-{each['q75_ms']:.2f}"
        interval = f"{each['ratio_low']:.2f}-{each['ratio_high']:.2f}"
        size = "-" if each["file_mb"] is None else f"{each['file_mb']:.2f} MB"
        lines.append(
            f"{each['name']:<{_NAME_WIDTH}} {each['median_ms']:>6.2f} ms {quartiles:>14} ms {each['ratio']:>6.2f}x "
            f"{interval:>14}x {each['peak_mb']:>5.0f} MB {size:>8}  {each['input']}; {each['note']}\n"
        )
    lines += [f"{each['name']:<{_NAME_WIDTH}} left out: {each['reason']}\n" for each in told["left_out"]]
    device, versions = told["device"], told["versions"]
    useful = [name for name in device["features"] if name.startswith(("avx", "amx", "asimd", "sve", "i8mm", "bf16"))]
    machine = f"{device['arch']}, {device['cpu']} ({' '.join(useful)}); {told['threads']} threads, spinning off"
    turns = f"{told['rounds']} rounds of {told['round_s']:g} s in turn"
    software = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    ratio = "ratio: time over the first row's, median over rounds"
    memory = "memory: the most that the whole process had resident, interpreter, runtime and model"
    return "".join([*lines, f"{told['said']}\n{machine}, {turns}; {software}\n{ratio}; {memory}; {_PREPROCESSING}\n"])
