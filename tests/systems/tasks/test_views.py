"""Averaging over views of an image, against a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlsearch.systems.shared.views import Views


@pytest.fixture
def images():
    return torch.rand(3, 2, 8, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 8 * 6, 5)
    )


def by_hand(image, crops, flip, scales, pad):
    """The views of one image (C, H, W), each cut out pixel by pixel."""
    channels, height, width = image.shape
    found = []
    for scale in scales:
        sides = (round(height * scale), round(width * scale))
        canvas = (
            nn.functional.interpolate(image[None], size=sides, mode="bilinear")[0]
            if scale != 1
            else image
        )
        canvas = (
            nn.functional.pad(canvas[None], (pad, pad, pad, pad), mode="reflect")[0]
            if pad
            else canvas
        )
        down, right = canvas.shape[1] - height, canvas.shape[2] - width
        at = [(0, 0), (0, right), (down, 0), (down, right)] if crops > 1 else []
        windows = []
        for top, left in [*at, (down // 2, right // 2)]:
            window = torch.empty(channels, height, width)
            for y in range(height):
                for x in range(width):
                    window[:, y, x] = canvas[:, top + y, left + x]
            windows.append(window)
        if crops == 6:
            windows.append(
                nn.functional.interpolate(canvas[None], size=(height, width), mode="bilinear")[0]
            )
        for window in windows:
            found.append(window)
            if flip:
                found.append(
                    torch.stack([window[:, :, width - 1 - x] for x in range(width)], dim=2)
                )
    return found


CASES = [
    (1, True, (1.0,), 0),
    (5, False, (1.5,), 0),
    (5, True, (1.0,), 2),
    (6, True, (1.5, 2.0), 1),
    (1, False, (2.0,), 0),
]


@pytest.mark.parametrize(("crops", "flip", "scales", "pad"), CASES)
def test_the_average_is_that_of_a_plain_loop(images, net, crops, flip, scales, pad):
    views = Views(crops, flip, scales, pad)
    expected = []
    for image in images:
        each = [net(view[None])[0] for view in by_hand(image, crops, flip, scales, pad)]
        assert len(each) == len(views)
        expected.append((sum(v.softmax(0) for v in each) / len(each), sum(each) / len(each)))
    found = views.averaged(net, images, probabilities=True)
    torch.testing.assert_close(found.softmax(1), torch.stack([p for p, _ in expected]))
    torch.testing.assert_close(found.exp().sum(1), torch.ones(3))  # the logarithm of probabilities
    plain = views.averaged(net, images, probabilities=False)
    torch.testing.assert_close(plain, torch.stack([v for _, v in expected]))


def test_alexnet_s_ten_views_are_five_windows_and_their_mirror_images():
    x = torch.arange(224 * 224.0).reshape(1, 1, 224, 224)
    views = list(Views(5, flip=True, scale=256 / 224)(x))
    assert len(views) == 10
    assert {tuple(view.shape) for view in views} == {(1, 1, 224, 224)}
    canvas = nn.functional.interpolate(x, size=(256, 256), mode="bilinear")
    assert torch.equal(views[0], canvas[..., :224, :224])
    assert torch.equal(views[6], canvas[..., 32:, 32:])
    assert torch.equal(views[8], canvas[..., 16:240, 16:240])
    assert torch.equal(views[1], views[0].flip(-1))


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"crops": 3}, "crops"), ({"scale": 0.5}, "scale"), ({"scale": []}, "scale"), ({"pad": -1}, "pad"),
     ({"crops": 5}, "crops"), ({"crops": 6, "scale": [1.0, 1.5]}, "crops")],
)  # fmt: skip
def test_what_can_be_meant_by_nobody_is_refused(settings, key):
    with pytest.raises(ValueError, match=f"^{key}: expected"):
        Views(**settings)


def test_a_border_as_wide_as_the_image_is_refused(images):
    with pytest.raises(ValueError, match=r"^pad: expected fewer"):
        list(Views(pad=6)(images))
    with pytest.raises(ValueError, match=r"^test_time: expected images"):
        list(Views(flip=True)(torch.zeros(2, 10)))


def test_by_default_there_is_no_view_but_the_image():
    assert not Views()
    assert Views(flip=True)
    assert Views(scale=1.2)
    assert Views(pad=1)


def test_validation_and_test_average_and_training_does_not(compose, trainer, images):
    from dlsearch.config.build import build

    cfg = compose(
        {"task.test_time.flip": True, "task.test_time.scale": 1.2, "task.test_time.crops": 5},
        model="convnet",
    )
    task = build(cfg.task, "task").eval()
    x = torch.rand(7, 1, 8, 8)
    y = torch.arange(7)
    with torch.no_grad():
        each = torch.stack([task.net(view).softmax(1) for view in Views(5, True, 1.2)(x)])
        outputs, labels = task.predict_step((x, y), 0)
    assert len(each) == 10
    torch.testing.assert_close(outputs.softmax(1), each.mean(0))
    assert torch.equal(labels, y)
    assert torch.equal(task(x), task.net(x))
    loader = torch.utils.data.DataLoader([(x[i], y[i]) for i in range(7)], batch_size=7)
    (found,) = trainer().validate(task, dataloaders=loader, verbose=False)
    expected = nn.functional.nll_loss(each.mean(0).log(), y)
    assert found["val/loss"] == pytest.approx(float(expected), rel=1e-5)
    assert found["val/accuracy"] == pytest.approx(
        float((each.mean(0).argmax(1) == y).float().mean())
    )


def test_a_table_has_no_views(compose):
    from dlsearch.config.build import build
    from dlsearch.core.errors import ConfigError

    cfg = compose({"task.test_time.flip": True}, data="diabetes", model="mlp", task="regression")
    with pytest.raises((ConfigError, ValueError), match="test_time: expected images"):
        build(cfg.task, "task")
