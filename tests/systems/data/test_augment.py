from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dlsearch.systems.vision.data.augment import Augment, ImageTransform, uniform

EVERYTHING = {
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "crop": 3,
    "translate": 0.1,
    "rotate": 30.0,
    "scale": 0.2,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
    "grayscale": 0.3,
}


def images(n: int = 33, channels: int = 3, height: int = 13, width: int = 17) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        0, 256, (n, channels, height, width), generator=generator, dtype=torch.uint8
    )


def always(**settings: Any) -> Augment:
    return Augment(**settings)


@pytest.mark.parametrize("name", [*EVERYTHING, "all"])
def test_a_sample_looks_the_same_whatever_its_batch_and_place(name: str) -> None:
    augment = Augment(**(EVERYTHING if name == "all" else {name: EVERYTHING[name]}))
    x, index = images(), torch.arange(100, 133)
    whole = augment(x, index, 7, 3)
    order = torch.randperm(33, generator=torch.Generator().manual_seed(1))
    assert torch.equal(augment(x[order], index[order], 7, 3), whole[order])
    for size in (1, 2, 8):
        parts = [augment(a, i, 7, 3) for a, i in zip(x.split(size), index.split(size), strict=True)]
        assert torch.equal(torch.cat(parts), whole), size


@pytest.mark.parametrize("name", EVERYTHING)
def test_each_augmentation_does_something_and_differs_by_epoch_seed_and_sample(name: str) -> None:
    augment = Augment(**{name: EVERYTHING[name]})
    assert augment
    same = images(1).expand(64, -1, -1, -1)
    index = torch.arange(64)
    first = augment(same, index, 0, 0)
    assert not torch.equal(first, augment(same, index, 0, 1))
    assert not torch.equal(first, augment(same, index, 1, 0))
    assert len(torch.unique(first.flatten(1), dim=0)) > 1
    assert first.min() >= 0
    assert first.max() <= 1 + 1e-6


def test_nothing_is_on_by_default() -> None:
    x = images()
    assert not Augment()
    assert torch.equal(Augment()(x, torch.arange(33), 0, 0), x / 255.0)


def test_flips_are_mirror_images() -> None:
    x, index = images(), torch.arange(33)
    assert torch.equal(always(horizontal_flip=1.0)(x, index, 0, 0), x.flip(3) / 255.0)
    assert torch.equal(always(vertical_flip=1.0)(x, index, 0, 0), x.flip(2) / 255.0)
    half = always(horizontal_flip=0.5)(images(400), torch.arange(400), 0, 0)
    flipped = (half == images(400).flip(3) / 255.0).flatten(1).all(1).float().mean()
    assert 0.42 < flipped < 0.58


def test_a_crop_is_a_window_of_the_padded_image() -> None:
    x = images(200, 1, 6, 6)
    found = (always(crop=2)(x, torch.arange(200), 0, 0) * 255).round().to(torch.uint8)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    seen = set()
    for image, source in zip(found, padded, strict=True):
        windows = {
            (r, c)
            for r in range(5)
            for c in range(5)
            if torch.equal(image, source[:, r : r + 6, c : c + 6])
        }
        assert len(windows) == 1
        seen |= windows
    assert len(seen) == 25


def test_a_quarter_turn_and_a_warp_by_nothing() -> None:
    x = images(4, 1, 9, 9)
    augment = always(rotate=1e-7)
    torch.testing.assert_close(augment(x, torch.arange(4), 0, 0), x / 255.0, rtol=0, atol=1e-5)
    quarter = torch.tensor([0.5 + 90 / 360] * 4, dtype=torch.float64)
    still = torch.full((4,), 0.5, dtype=torch.float64)
    turned = always(rotate=180.0)._warp(x / 255.0, quarter, still, still, still)
    # the target's right (x = 1, y = 0) shows the source's (cos 90°, -sin 90°): its top
    torch.testing.assert_close(turned, torch.rot90(x, -1, (2, 3)) / 255.0, rtol=0, atol=1e-5)


def test_a_translation_moves_by_pixels_and_a_scale_about_the_middle() -> None:
    x = torch.zeros(1, 1, 10, 20)
    x[..., 5, 10] = 1.0
    still, most = (torch.tensor([u], dtype=torch.float64) for u in (0.5, 1.0))
    moved = always(translate=0.1)._warp(x, still, still, most, most)  # by 0.1 of 20 and of 10
    assert moved[..., 6, 12].item() == pytest.approx(1.0, abs=1e-5)
    blob = torch.zeros(1, 1, 16, 16)
    blob[..., 6:10, 6:10] = 1.0
    larger = always(scale=0.5)._warp(blob, still, most, still, still)
    assert larger.sum() == pytest.approx(16 * 1.5**2, rel=0.05)


def test_colours() -> None:
    x, index = images(), torch.arange(33)
    grey = always(grayscale=1.0)(x, index, 0, 0)
    torch.testing.assert_close(
        grey[:, 0], (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1) / 255
    )
    assert torch.equal(grey[:, 0], grey[:, 2])
    bright = always(brightness=0.5)(x, index, 0, 0)
    factors = (1 + (2 * uniform(0, 0, index, 12)[:, 8] - 1) * 0.5).float()
    torch.testing.assert_close(bright, (x / 255.0 * factors[:, None, None, None]).clamp(0, 1))
    one = images(channels=1)
    assert torch.equal(always(saturation=0.9, grayscale=1.0)(one, index, 0, 0), one / 255.0)


def test_random_numbers_are_uniform_and_unrelated() -> None:
    u = uniform(3, 5, torch.arange(20_000), 4)
    assert u.shape == (20_000, 4)
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u[:, 0].float(), bins=20, min=0, max=1)
    assert (counts - 1000).abs().max() < 150  # five standard deviations
    others = [
        uniform(3, 6, torch.arange(20_000), 1),
        uniform(4, 5, torch.arange(20_000), 1),
        u[:, 1:2],
        u[:, :1].roll(1, 0),
    ]
    for other in others:
        correlation = torch.corrcoef(torch.stack([u[:, 0], other[:, 0]]))[0, 1]
        assert abs(correlation) < 0.04


def test_first_numbers_do_not_depend_on_how_many_are_drawn() -> None:
    index = torch.arange(9)
    assert torch.equal(uniform(1, 2, index, 3), uniform(1, 2, index, 12)[:, :3])


@pytest.mark.parametrize(
    ("name", "value"), [("horizontal_flip", 1.1), ("crop", -1), ("rotate", 181), ("scale", 0.95)]
)
def test_impossible_settings_are_refused_by_their_argument(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected 0 to"):
        Augment(**{name: value})


@pytest.mark.parametrize(
    "augment", [None, Augment(), Augment(horizontal_flip=1.0)], ids=["none", "off", "flip"]
)
def test_the_transform_standardises(augment: Augment | None) -> None:
    x = images()
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    found = ImageTransform(mean, std, augment)(x, torch.arange(33), 0)
    seen = x.flip(3) if augment else x
    expected = (seen / 255.0 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(found, expected)
