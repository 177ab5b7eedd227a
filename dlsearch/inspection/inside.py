"""What a trained net looks for, on images of its own validation data.

All that the study's record keeps of it is measured here, as numbers and small pictures;
:mod:`dlsearch.report.figures.inside` draws it.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlsearch.inspection.curves import curves
from dlsearch.inspection.deconvolution import (
    RECTIFIED,
    Box,
    Chain,
    Geometry,
    find_chain,
    geometry,
    project,
)
from dlsearch.inspection.describe import first_layer, summary
from dlsearch.inspection.findings import (
    DeconvolvedLayer,
    GradientNorms,
    InsideFindings,
    LayerMaps,
    WarpedImages,
    round_to_digits,
)
from dlsearch.inspection.gradients import gradient_norms, rows
from dlsearch.inspection.layers import run_hooked
from dlsearch.inspection.tiles import (
    WHITE,
    encode_tiles,
    grey_or_colour,
    restore_pixels,
    scale_signed,
    shrink_tiles,
    stretch_tiles,
)
from dlsearch.training.building import build_data, build_task, seed_everything

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from omegaconf import DictConfig

    from dlsearch.core.types import JsonObject

#: Images that are looked at, the fewest of them, and multiply-adds that this may cost.
IMAGES = 256
FEWEST_IMAGES = 16
MACS = 50e9
#: Examples that gradients are measured on.
BATCH = 64
#: Layers and maps of each that are shown, and their largest side.
LAYERS = 5
MAPS = 16
SIDE = 32
#: Layers, channels and images of the deconvolutional visualisation, and the largest side of its
#: pictures.
DEPTHS = 4
CHANNELS = 6
TOP = 3
CROP = 40
#: Images beside their warped forms, and the largest side of pictures of the data.
PAIRS = 8
PICTURE = 64


@dataclass(frozen=True)
class Examples:
    """Inputs of a net, and what belongs to them.

    Args:
        inputs: (N, *in_shape).
        targets: (N,) classes or numbers; None where the data have none.
    """

    inputs: Tensor
    targets: Tensor | None


@torch.no_grad()
def look(
    net: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    spec: JsonObject | None = None,
    initial: nn.Module | None = None,
) -> InsideFindings:
    """Everything that can be seen of a net; what a net has nothing of is None.

    Args:
        net: Takes (B, *in_shape). It stays as it is.
        x: (N, *in_shape), of training or validation data.
        y: (N,) classes or numbers; without them there are no gradients.
        spec: The data module's ``input_spec``.
        initial: The same net before its training.

    Returns:
        ``n`` images, ``first_layer``, ``maps`` (of the first image), ``deconvolution``, ``warped``
        and ``gradients``.
    """
    net = copy.deepcopy(net).eval().cpu()
    x = x.detach().float().cpu()
    in_shape = tuple(x.shape[1:])
    found: InsideFindings = {
        "n": len(x),
        "first_layer": first_layer(net, in_shape),
        "image": None,
        "maps": None,
        "deconvolution": None,
        "warped": None,
        "gradients": None,
    }
    if x.dim() == 4 and min(x.shape[2:]) > 1:
        _look_at_images(
            net,
            Examples(x, y),
            spec,
            found,
        )
    if y is not None:
        batch = Examples(x[:BATCH], y[:BATCH].cpu())
        found["gradients"] = _compare_gradients(net, initial, batch)
    return found


def _look_at_images(
    net: nn.Module,
    examples: Examples,
    spec: JsonObject | None,
    found: InsideFindings,
) -> None:
    """Add to `found` what a net that takes images can show of them."""
    x = examples.inputs
    pictures = restore_pixels(x, spec)
    maps = feature_maps(net, x[:1])
    if maps:
        found["maps"] = maps
        found["image"] = encode_tiles(shrink_tiles(pictures[:1], PICTURE))
    chain = find_chain(net, x[:1])
    if chain is not None:
        found["deconvolution"] = deconvolutions(
            net,
            chain,
            x,
            spec,
        )
    found["warped"] = warped(
        net,
        x,
        pictures,
        examples.targets,
    )


def _compare_gradients(
    net: nn.Module,
    initial: nn.Module | None,
    batch: Examples,
) -> GradientNorms | None:
    """Norms before the training, where that net is known, and after it."""
    assert batch.targets is not None
    before = None
    if initial is not None:
        initial = copy.deepcopy(initial).cpu()
        before = gradient_norms(initial, batch.inputs, batch.targets)
    after = gradient_norms(net, batch.inputs, batch.targets)
    return rows(before, after)


def of_training(
    cfg: DictConfig,
    task: pl.LightningModule,
    folder: Path,
) -> InsideFindings | None:
    """Look into a trained task with validation data of its configuration, for the study's record.

    A failure here must not fail the scoring that it belongs to: where a net or its data cannot be
    inspected, the traceback is printed and the record goes without.

    Args:
        cfg: What was trained.
        task: With its weights, as it is kept.
        folder: Of the training, with its journals.

    Returns:
        What :func:`look` finds, and ``curves``; None where nothing can be seen.
    """
    found: InsideFindings = {}
    try:
        found = see(cfg, task)
        found["curves"] = curves(folder)
    except Exception:
        traceback.print_exc()
    parts = {key: value for key, value in found.items() if key not in ("n", "source")}
    return found if any(parts.values()) else None


def see(
    cfg: DictConfig,
    task: pl.LightningModule,
    given: tuple[Tensor, JsonObject] | None = None,
) -> InsideFindings:
    """Look into a task, and into the same as its training began.

    Args:
        cfg: What the task was built from; its validation data are looked at.
        task: With the weights that are looked at.
        given: Inputs, standardised, and the ``input_spec`` that they were made by; no data are
            opened then.

    Returns:
        What :func:`look` finds, and ``source``: where the examples are from; empty where there is
        no net or none.
    """
    net = getattr(task, "net", None)
    if not isinstance(net, nn.Module):
        return {}
    if given is not None:
        inputs, spec_of_files = given
        found = look(net, inputs, spec=spec_of_files)
        found["source"] = "files"
        return found
    seed_everything(cfg.seed)  # in the order in which the training began
    data = build_data(cfg)
    if data is None:
        return {}
    before = getattr(build_task(cfg), "net", None)
    examples = validation(data, net)
    if examples is None:
        return {}
    found = look(
        net,
        examples.inputs,
        examples.targets,
        spec=data.input_spec() if hasattr(data, "input_spec") else None,
        initial=before,
    )
    found["source"] = "the validation data"
    return found


# -- examples -------------------------------------------------------------------------------------
def validation(
    data: pl.LightningDataModule,
    net: nn.Module,
) -> Examples | None:
    """Examples of the validation data, as the net is given them; the test set stays closed."""
    data.prepare_data()
    data.setup("fit")
    batches = data.val_dataloader()
    one = gather_examples(batches, 1)
    if one is None:
        return None
    in_shape = one.inputs.shape[1:]
    return gather_examples(batches, how_many(net, in_shape))


def how_many(net: nn.Module, in_shape: Iterable[int]) -> int:
    """As many images as :data:`MACS` pay for, between :data:`FEWEST_IMAGES` and :data:`IMAGES`."""
    macs = summary(net, tuple(in_shape))["macs"]
    affordable = MACS / max(1, macs)
    return int(min(IMAGES, max(FEWEST_IMAGES, affordable)))


def gather_examples(batches: Iterable[Any], n: int) -> Examples | None:
    """The first `n` examples of batches (x, y).

    Classes take turns at the front, so that few examples show many.

    Returns:
        None where a batch is no such pair.
    """
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    gathered = 0
    for batch in batches:
        if not _has_inputs(batch):
            return None
        inputs.append(batch[0])
        gathered += len(batch[0])
        if _has_targets(batch):
            targets.append(batch[1])
        if gathered >= n:
            break
    if not inputs:
        return None
    x = torch.cat(inputs)[:n].cpu()
    if len(targets) < len(inputs):
        return Examples(x, None)
    y = torch.cat(targets)[:n].cpu()
    if y.is_floating_point() or y.dim() != 1:
        return Examples(x, y)
    order = _order_by_turns(y)
    return Examples(x[order], y[order])


def _has_inputs(batch: Any) -> bool:
    """Whether a batch is a sequence that begins with a tensor."""
    if not isinstance(batch, (tuple, list)) or not batch:
        return False
    return isinstance(batch[0], Tensor)


def _has_targets(batch: Sequence[Any]) -> bool:
    """Whether a batch has a second tensor with an entry for each input."""
    if len(batch) < 2 or not isinstance(batch[1], Tensor):
        return False
    return len(batch[1]) == len(batch[0])


def _order_by_turns(labels: Tensor) -> Tensor:
    """Indices that put one example of each class first, then the next of each, and so on."""
    turns = torch.zeros(len(labels), dtype=torch.long)
    for label in labels.unique():
        of_class = (labels == label).nonzero().flatten()
        turns[of_class] = torch.arange(len(of_class))
    labels_a_turn = int(labels.max()) + 1
    return torch.argsort(turns * labels_a_turn + labels, stable=True)


# -- feature maps ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Answer:
    """What a layer answers to one image.

    Args:
        layer: Its name.
        module: The layer.
        out: (1, channels, H, W).
    """

    layer: str
    module: nn.Module
    out: Tensor

    @property
    def names(self) -> Sequence[str] | None:
        """Those of fixed kernels; a trained layer has none."""
        return getattr(self.module, "names", None)

    @property
    def kernels(self) -> Tensor | None:
        """Fixed kernels, (kernels, height, width)."""
        bank = getattr(self.module, "bank", None)
        return bank if self.names and isinstance(bank, Tensor) else None


def feature_maps(net: nn.Module, image: Tensor) -> list[LayerMaps]:
    """Maps of some layers from first to last: activations, and the answers of fixed kernels.

    Of each layer the maps that answer most on average are shown, in their order; each is stretched
    from its least value to its largest.

    Args:
        net: In evaluation mode.
        image: (1, C, H, W).
    """
    answers: list[_Answer] = []

    def taking(layer: str) -> Callable[[nn.Module, Any, Any], None]:
        def take_maps(
            module: nn.Module,
            inputs: Any,
            out: Any,
        ) -> None:
            if _are_maps(out):
                kept = out.detach().clone()  # the next layer may work in place
                answers.append(_Answer(layer, module, kept))

        return take_maps

    named = _layers_with_maps(net)
    hooks = [module.register_forward_hook(taking(name)) for name, module in named]
    run_hooked(net, image, hooks)
    shown = [answer for answer in answers if hasattr(answer.module, "names")]
    if not shown:
        shown = [answers[place] for place in spread_evenly(len(answers), LAYERS)]
    return [_describe_maps(answer) for answer in shown]


def _are_maps(out: Any) -> bool:
    if not isinstance(out, Tensor) or out.dim() != 4:
        return False
    return out.shape[1] > 1 and min(out.shape[2:]) > 1


def _layers_with_maps(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Activations and fixed kernels; convolutions where a net has neither."""
    answering: list[tuple[str, nn.Module]] = []
    convolutions: list[tuple[str, nn.Module]] = []
    for name, module in net.named_modules():
        if isinstance(module, RECTIFIED) or hasattr(module, "names"):
            answering.append((name, module))
        if isinstance(module, nn.Conv2d):
            convolutions.append((name, module))
    return answering or convolutions


def _describe_maps(answer: _Answer) -> LayerMaps:
    names = answer.names
    kernels = answer.kernels
    maps = answer.out[0]  # (channels, H, W)
    chosen = _strongest_maps(maps)
    if names:  # of the first channel of the image
        chosen = torch.arange(min(len(names), len(maps)))
    side = PICTURE if names else SIDE
    tiles = shrink_tiles(maps[chosen][:, None], side)
    return {
        "layer": answer.layer,
        "type": type(answer.module).__name__,
        "total": len(maps),
        "sides": list(maps.shape[1:]),
        "channels": chosen.tolist(),
        "names": list(names) if names else None,
        "kernels": None if kernels is None else encode_tiles(scale_signed(kernels[:, None])),
        "tiles": encode_tiles(stretch_tiles(tiles)),
    }


def _strongest_maps(maps: Tensor) -> Tensor:
    """Channels of (channels, H, W) that answer most on average, in their order."""
    means = maps.mean(dim=(1, 2))
    most = min(MAPS, len(maps))
    return means.topk(most).indices.sort().values


def spread_evenly(n: int, most: int) -> list[int]:
    """At most `most` of `n` places, evenly from the first to the last."""
    if n <= most:
        return list(range(n))
    return [round(i * (n - 1) / (most - 1)) for i in range(most)]


# -- deconvolution --------------------------------------------------------------------------------
def deconvolutions(
    net: nn.Module,
    chain: Chain,
    x: Tensor,
    spec: JsonObject | None,
) -> list[DeconvolvedLayer] | None:
    """For features of some layers: the parts of the images that excite them, and what of these did.

    The channels with the strongest answers are taken, and of each the images that it answers most
    to; pictures are cut to the receptive field of the unit that answered.

    Args:
        net: Whose chain it is.
        chain: Its layers that can be passed backwards.
        x: (N, C, H, W), what the net is given.
        spec: The data module's ``input_spec``.
    """
    seen = _input_of_chain(net, chain, x)
    pictures = restore_pixels(seen, spec)
    features = chain.features()
    found: list[DeconvolvedLayer] = []
    for place in spread_evenly(len(features), DEPTHS):
        described = _describe_features(
            chain,
            features[place],
            seen,
            pictures,
        )
        if described is not None:
            found.append(described)
    return found or None


def _input_of_chain(
    net: nn.Module,
    chain: Chain,
    x: Tensor,
) -> Tensor:
    """What the first layer of the chain is given.

    The images, or what a spatial transformer made of them.
    """
    taken: list[Tensor] = []

    def take_input(module: nn.Module, given: Any) -> None:
        taken.append(given[0].detach().clone())

    first = chain.layers[0]
    run_hooked(net, x, [first.register_forward_pre_hook(take_input)])
    return taken[0]


def _describe_features(
    chain: Chain,
    layer: int,
    seen: Tensor,
    pictures: Tensor,
) -> DeconvolvedLayer | None:
    """Of one layer of the chain; None where no channel answers.

    Args:
        chain: Of the net.
        layer: Index in the chain.
        seen: (N, C, H, W), what the chain is given.
        pictures: The same as they are shown.
    """
    out = chain.run(seen, layer)
    if out.shape[1] < 1 or not bool(torch.isfinite(out).all()):
        return None
    peaks = out.amax(dim=(2, 3))  # (N, channels)
    channels = _strongest_channels(peaks)
    if not len(channels):
        return None
    most = min(TOP, len(seen))
    top = peaks[:, channels].topk(most, dim=0).indices.T  # (channels, TOP)
    images = top.flatten()
    wanted = channels.repeat_interleave(top.shape[1]).tolist()
    projected = project(
        chain.layers,
        seen[images],
        layer,
        wanted,
    )
    pixels = grey_or_colour(projected)
    where = geometry(chain.layers[: layer + 1])
    projections: list[Tensor] = []
    patches: list[Tensor] = []
    for number, (image, channel) in enumerate(zip(images.tolist(), wanted, strict=True)):
        box = _field_of_strongest(out[image, channel], where, seen.shape[2:])
        projections.append(box.cut(pixels[number]))
        patches.append(box.cut(pictures[image]))
    signed = scale_signed(torch.stack(projections))
    return {
        "layer": chain.names[layer],
        "field": list(where.size),
        "channels": channels.tolist(),
        "total": out.shape[1],
        "images": top.shape[1],
        "projections": encode_tiles(shrink_tiles(signed, CROP)),
        "patches": encode_tiles(shrink_tiles(torch.stack(patches), CROP)),
    }


def _strongest_channels(peaks: Tensor) -> Tensor:
    """Of (N, channels): those with the largest peaks over all images, where these are positive."""
    largest = peaks.amax(0)
    most = min(CHANNELS, len(largest))
    channels = largest.topk(most).indices.sort().values
    return channels[largest[channels] > 0]


def _field_of_strongest(
    answers: Tensor,
    where: Geometry,
    sides: Sequence[int],
) -> Box:
    """What the unit that answers most in a map, (H, W), sees of an image of `sides`."""
    strongest = int(answers.flatten().argmax())
    row, column = divmod(strongest, answers.shape[1])
    return where.box(row, column, sides)


# -- spatial transformers -------------------------------------------------------------------------
def warped(
    net: nn.Module,
    x: Tensor,
    pictures: Tensor,
    y: Tensor | None,
) -> WarpedImages | None:
    """Images, and what a spatial transformer makes of them; None where the net has none.

    Args:
        net: One of whose modules has ``maps`` (from images to affine maps, (B, 2, 3)) and gives
            images.
        x: (N, C, H, W).
        pictures: The same as they are shown.
        y: Their classes.
    """
    name, transformer = _find_transformer(net)
    if transformer is None:
        return None
    given = x[:PAIRS]
    low = given.amin()
    extent = (given.amax() - low).clamp_min(1e-12)
    out = (transformer(given) - low) / extent * WHITE
    labels = None
    if y is not None and not y.is_floating_point():
        labels = y[:PAIRS].tolist()
    return {
        "layer": name,
        "images": encode_tiles(shrink_tiles(pictures[:PAIRS], PICTURE)),
        "warped": encode_tiles(shrink_tiles(grey_or_colour(out), PICTURE)),
        "maps": [_round_matrix(matrix) for matrix in transformer.maps(given).tolist()],
        "labels": labels,
    }


def _find_transformer(net: nn.Module) -> tuple[str, Any]:
    """The name of the first part of a net that has ``maps``, and the part."""
    for name, module in net.named_modules():
        if name and hasattr(module, "maps"):
            return name, module
    return "", None


def _round_matrix(matrix: list[list[float]]) -> list[list[float]]:
    return [[round_to_digits(value, 4) for value in row] for row in matrix]
