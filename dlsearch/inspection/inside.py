"""What a trained net looks for, on images of its own validation data: all that the study's record keeps of it.

Everything is measured here, as numbers and small pictures; :mod:`dlsearch.report.figures.inside`
draws it.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlsearch.inspection.curves import curves
from dlsearch.inspection.deconvolution import RECTIFIED, Chain, find_chain, geometry, project
from dlsearch.inspection.describe import first_layer, summary
from dlsearch.inspection.gradients import gradient_norms, rows
from dlsearch.inspection.tiles import (
    encode_tiles,
    grey_or_colour,
    restore_pixels,
    scale_signed,
    shrink_tiles,
    stretch_tiles,
)
from dlsearch.training.fit import build_data, build_task, seed_everything

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from omegaconf import DictConfig

#: Images that are looked at, and multiply-adds that this may cost.
IMAGES = 256
MACS = 50e9
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


@torch.no_grad()
def look(
    net: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    spec: dict[str, Any] | None = None,
    initial: nn.Module | None = None,
) -> dict[str, Any]:
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
    found: dict[str, Any] = {"n": len(x), "first_layer": first_layer(net, tuple(x.shape[1:]))}
    found |= dict.fromkeys(("image", "maps", "deconvolution", "warped", "gradients"))
    if x.dim() == 4 and min(x.shape[2:]) > 1:
        pictures = restore_pixels(x, spec)
        found["maps"] = feature_maps(net, x[:1]) or None
        if found["maps"]:
            found["image"] = encode_tiles(shrink_tiles(pictures[:1], PICTURE))
        chain = find_chain(net, x[:1])
        found["deconvolution"] = None if chain is None else deconvolutions(net, chain, x, spec)
        found["warped"] = warped(net, x, pictures, y)
    if y is not None:
        batch = x[:64], y[:64].cpu()
        before = None if initial is None else gradient_norms(copy.deepcopy(initial).cpu(), *batch)
        found["gradients"] = rows(before, gradient_norms(net, *batch))
    return found


def of_training(cfg: DictConfig, task: pl.LightningModule, folder: Path) -> dict[str, Any] | None:
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
    found: dict[str, Any] = {}
    try:
        found = see(cfg, task)
        found["curves"] = curves(folder)
    except Exception:
        traceback.print_exc()
    return (
        found if any(value for key, value in found.items() if key not in ("n", "source")) else None
    )


def see(
    cfg: DictConfig, task: pl.LightningModule, given: tuple[Tensor, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Look into a task, and into the same as its training began, with inputs or its configuration's validation data.

    Args:
        cfg: What the task was built from.
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
        return {**look(net, given[0], spec=given[1]), "source": "files"}
    seed_everything(cfg.seed)  # in the order in which the training began
    data = build_data(cfg)
    if data is None:
        return {}
    before = getattr(build_task(cfg), "net", None)
    examples = validation(data, net)
    if examples is None:
        return {}
    spec = data.input_spec() if hasattr(data, "input_spec") else None
    return {
        **look(
            net,
            *examples,
            spec=spec,
            initial=before,
        ),
        "source": "the validation data",
    }


def validation(data: pl.LightningDataModule, net: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Examples of the validation data, as the net is given them; the test set stays closed."""
    data.prepare_data()
    data.setup("fit")
    batches = data.val_dataloader()
    first = gather_examples(batches, 1)
    return None if first is None else gather_examples(batches, how_many(net, first[0].shape[1:]))


def how_many(net: nn.Module, in_shape: Iterable[int]) -> int:
    """As many images as :data:`MACS` pay for, between 16 and :data:`IMAGES`."""
    return int(min(IMAGES, max(16, MACS / max(1, summary(net, tuple(in_shape))["macs"]))))


def gather_examples(batches: Iterable[Any], n: int) -> tuple[Tensor, Tensor | None] | None:
    """The first `n` examples of batches (x, y).

    Classes take turns at the front, so that few examples show many.

    Returns:
        None where a batch is no such pair.
    """
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    size = 0
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or not batch or not isinstance(batch[0], Tensor):
            return None
        xs.append(batch[0])
        size += len(batch[0])
        if _has_targets(batch):
            ys.append(batch[1])
        if size >= n:
            break
    if not xs:
        return None
    x = torch.cat(xs)[:n].cpu()
    if len(ys) < len(xs):
        return x, None
    y = torch.cat(ys)[:n].cpu()
    if y.is_floating_point() or y.dim() != 1:
        return x, y
    order = _order_by_turns(y)
    return x[order], y[order]


def _has_targets(batch: Sequence[Any]) -> bool:
    """Whether a batch has a second tensor with an entry for each input."""
    return len(batch) > 1 and isinstance(batch[1], Tensor) and len(batch[1]) == len(batch[0])


def _order_by_turns(labels: Tensor) -> Tensor:
    """Indices that put one example of each class first, then the next of each, and so on."""
    turns = torch.zeros(len(labels), dtype=torch.long)
    for label in labels.unique():
        mine = (labels == label).nonzero().flatten()
        turns[mine] = torch.arange(len(mine))
    return torch.argsort(turns * (int(labels.max()) + 1) + labels, stable=True)


# -- feature maps ----------------------------------------------------------------------------------
def feature_maps(net: nn.Module, image: Tensor) -> list[dict[str, Any]]:
    """Maps of some layers from the first to the last: activations, and the answers of fixed kernels.

    Of each layer the maps that answer most on average are shown, in their order; each is stretched
    from its least value to its largest.

    Args:
        net: In evaluation mode.
        image: (1, C, H, W).
    """
    taken: list[tuple[str, nn.Module, Tensor]] = []

    def take_maps(name: str, module: nn.Module, out: Any) -> None:
        if _are_maps(out):
            taken.append((name, module, out.detach().clone()))  # the next layer may work in place

    hooks = [
        module.register_forward_hook(lambda m, i, o, name=name: take_maps(name, m, o))
        for name, module in _layers_with_maps(net)
    ]
    try:
        net(image)
    finally:
        for hook in hooks:
            hook.remove()
    fixed = [row for row in taken if hasattr(row[1], "names")]
    shown = fixed or [taken[i] for i in spread_evenly(len(taken), LAYERS)]
    return [_describe_maps(*row) for row in shown]


def _are_maps(out: Any) -> bool:
    if not isinstance(out, Tensor) or out.dim() != 4:
        return False
    return out.shape[1] > 1 and min(out.shape[2:]) > 1


def _layers_with_maps(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Activations and fixed kernels; convolutions where a net has neither."""
    named = list(net.named_modules())
    answering = [
        (name, module)
        for name, module in named
        if isinstance(module, RECTIFIED) or hasattr(module, "names")
    ]
    return answering or [(name, module) for name, module in named if isinstance(module, nn.Conv2d)]


def _describe_maps(name: str, module: nn.Module, out: Tensor) -> dict[str, Any]:
    names = getattr(module, "names", None)
    kernels = getattr(module, "bank", None)
    most = len(names) if names else MAPS
    chosen = out[0].mean(dim=(1, 2)).topk(min(most, out.shape[1])).indices.sort().values
    if names:  # of the first channel of the image
        chosen = torch.arange(min(len(names), out.shape[1]))
    tiles = out[0, chosen][:, None]
    return {
        "layer": name,
        "type": type(module).__name__,
        "total": out.shape[1],
        "sides": list(out.shape[2:]),
        "channels": chosen.tolist(),
        "names": list(names) if names else None,
        "kernels": encode_tiles(scale_signed(kernels[:, None]))
        if names and isinstance(kernels, Tensor)
        else None,
        "tiles": encode_tiles(stretch_tiles(shrink_tiles(tiles, PICTURE if names else SIDE))),
    }


def spread_evenly(n: int, most: int) -> list[int]:
    """At most `most` of `n` places, evenly from the first to the last."""
    if n <= most:
        return list(range(n))
    return [round(i * (n - 1) / (most - 1)) for i in range(most)]


# -- deconvolution ---------------------------------------------------------------------------------
def deconvolutions(
    net: nn.Module,
    chain: Chain,
    x: Tensor,
    spec: dict[str, Any] | None,
) -> list[dict[str, Any]] | None:
    """For features of some layers: the parts of the images that excite them most, and what of these did.

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
    found = [
        _describe_features(chain, features[i], seen, pictures)
        for i in spread_evenly(len(features), DEPTHS)
    ]
    return [each for each in found if each is not None] or None


def _input_of_chain(net: nn.Module, chain: Chain, x: Tensor) -> Tensor:
    """What the first layer of the chain is given: the images, or what a spatial transformer made of them."""
    taken: list[Tensor] = []
    hook = chain.layers[0].register_forward_pre_hook(
        lambda m, given: taken.append(given[0].detach().clone())
    )
    try:
        net(x)
    finally:
        hook.remove()
    return taken[0]


def _describe_features(
    chain: Chain,
    layer: int,
    seen: Tensor,
    pictures: Tensor,
) -> dict[str, Any] | None:
    out = chain.run(seen, layer)
    if out.shape[1] < 1 or not bool(torch.isfinite(out).all()):
        return None
    peaks = out.amax(dim=(2, 3))  # (N, channels)
    channels = peaks.amax(0).topk(min(CHANNELS, peaks.shape[1])).indices.sort().values
    channels = channels[peaks.amax(0)[channels] > 0]
    if not len(channels):
        return None
    top = peaks[:, channels].topk(min(TOP, len(seen)), dim=0).indices.T  # (channels, TOP)
    images = top.flatten()
    wanted = channels.repeat_interleave(top.shape[1]).tolist()
    pixels = grey_or_colour(project(chain.layers, seen[images], layer, wanted))
    where = geometry(chain.layers[: layer + 1])
    sides = list(seen.shape[2:])
    width = out.shape[3]
    projected = []
    cut = []
    for number, (image, channel) in enumerate(zip(images.tolist(), wanted, strict=True)):
        row, column = divmod(int(out[image, channel].flatten().argmax()), width)
        y, x, high, wide = where.box(row, column, sides)
        projected.append(pixels[number, :, y : y + high, x : x + wide])
        cut.append(pictures[image, :, y : y + high, x : x + wide])
    return {
        "layer": chain.names[layer],
        "field": list(where.size),
        "channels": channels.tolist(),
        "total": out.shape[1],
        "images": top.shape[1],
        "projections": encode_tiles(shrink_tiles(scale_signed(torch.stack(projected)), CROP)),
        "patches": encode_tiles(shrink_tiles(torch.stack(cut), CROP)),
    }


# -- spatial transformers --------------------------------------------------------------------------
def warped(
    net: nn.Module,
    x: Tensor,
    pictures: Tensor,
    y: Tensor | None,
) -> dict[str, Any] | None:
    """Images, and what a spatial transformer makes of them; None where the net has none.

    Args:
        net: One of whose modules has ``maps`` (from images to affine maps, (B, 2, 3)) and gives
            images.
        x: (N, C, H, W).
        pictures: The same as they are shown.
        y: Their classes.
    """
    name, module = next(
        ((n, m) for n, m in net.named_modules() if n and hasattr(m, "maps")), ("", None)
    )
    if module is None:
        return None
    given = x[:PAIRS]
    low = given.amin()
    high = given.amax()
    out = (module(given) - low) / (high - low).clamp_min(1e-12) * 255
    maps = module.maps(given)
    return {
        "layer": name,
        "images": encode_tiles(shrink_tiles(pictures[:PAIRS], PICTURE)),
        "warped": encode_tiles(shrink_tiles(grey_or_colour(out), PICTURE)),
        "maps": [[[float(f"{v:.4g}") for v in row] for row in each] for each in maps.tolist()],
        "labels": y[:PAIRS].tolist() if y is not None and not y.is_floating_point() else None,
    }
