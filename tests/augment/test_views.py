"""Tests of `Views` on plain tensors, and of the views of a policy with changed settings."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eztorch_sce.augment.policies import ViewChanges, views
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.augment.views import Views
from eztorch_sce.data.collate import collate
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import Batch, Sample


def images() -> torch.Tensor:
    return torch.randint(256, (4, 3, 24, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_images_become_float_views_of_images() -> None:
    first, second = Views(views("cifar", size=16))(images())
    assert first.shape == second.shape == (4, 3, 16, 16)
    assert first.dtype == torch.float32
    assert not torch.equal(first, second)


def test_an_image_gives_the_views_of_a_clip_of_one_frame() -> None:
    of_images, of_clips = Views("cifar")(images()), Views("cifar")(images().unsqueeze(2))
    assert all(torch.equal(a, b.squeeze(2)) for a, b in zip(of_images, of_clips, strict=True))


def test_each_call_draws_anew_and_a_seed_repeats_the_calls() -> None:
    augment, again = Views("cifar", seed=3), Views("cifar", seed=3)
    first, second = augment(images())[0], augment(images())[0]
    assert not torch.equal(first, second)
    assert torch.equal(again(images())[0], first)
    assert torch.equal(again(images())[0], second)
    assert not torch.equal(Views("cifar", seed=4)(images())[0], first)


def test_processes_draw_for_rows_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    same = images()[:1].expand(2, -1, -1, -1)
    monkeypatch.setattr("eztorch_sce.distributed.rank", lambda: 1)
    other = Views("cifar")(same)[0]
    monkeypatch.setattr("eztorch_sce.distributed.rank", lambda: 0)
    assert not torch.equal(Views("cifar")(same)[0], other)


def test_pixels_of_another_type_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"uint8 pixels, or floats in \[0, 1\], not torch.int64"):
        Views("cifar")(images().long())


@pytest.mark.parametrize(
    ("shape", "cure"),
    [
        ((3, 24, 32), r"images.unsqueeze\(0\)"),
        ((4, 24, 32, 3), r"images.permute\(0, 3, 1, 2\)"),
        ((4, 2, 24, 32, 3), r"clips.permute\(0, 4, 1, 2, 3\)"),
        ((4, 2, 3, 24, 32), r"clips.transpose\(1, 2\)"),
    ],
)
def test_axes_in_another_order_are_an_error(shape: tuple[int, ...], cure: str) -> None:
    with pytest.raises(ValueError, match=rf"clips \(B, 3, T, H, W\) or images \(B, 3, H, W\), got shape .*: {cure}$"):
        Views("cifar")(torch.zeros(shape, dtype=torch.uint8))


def test_floats_beyond_one_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"floats in \[0, 1\], got floats up to 255: divide by 255"):
        Views("cifar")(torch.full((2, 3, 24, 32), 255.0))


def test_a_batch_for_other_views_is_an_error() -> None:
    frames = [torch.zeros(3, 1, 16, 16, dtype=torch.uint8)] * 2
    batch = collate([Sample(frames, label=0, record=0, epoch=0, aspect=1.0)])
    assert isinstance(batch, Batch)
    with pytest.raises(ValueError, match=r"loaded for 2 views, not 1: give Views the views of its loader"):
        Views([ViewConfig(size=16)])(batch)
    with pytest.raises(ValueError, match=r"view 0 is of size 8, but the batch holds frames of 16 pixels: .*canvas=16"):
        Views([ViewConfig(size=8)] * 2)(batch)


def test_settings_change_in_all_views_of_a_policy() -> None:
    assert [(view.size, view.flip) for view in views("motion", size=64, flip=0.5)] == [(64, 0.5)] * 2
    assert [view.size for view in views("motion")] == [112, 112]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: views("cifra"), "views=cifra must be one of .*; did you mean cifar"),  # type: ignore[arg-type]
        (lambda: views("cifar", sise=3), "a view has no setting sise; did you mean size"),  # type: ignore[call-arg]
        (lambda: views("cifar", flip=2), "views.0.flip=2 must be between 0 and 1\n- views.1.flip=2"),
    ],
)
def test_an_invalid_change_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_type_checkers_know_the_settings_of_a_view() -> None:
    assert ViewChanges.__annotations__ == ViewConfig.__annotations__


@pytest.mark.parametrize("stats", ["cifar10", "clip"])
def test_views_have_the_dtype_and_memory_format_that_are_set(stats: str) -> None:
    augment, plain = Views(views("cifar", stats=stats)), Views(views("cifar", stats=stats))
    augment.dtype, augment.channels_last = torch.bfloat16, True
    clips = images().unsqueeze(2).expand(-1, -1, 3, -1, -1)
    for view, expected in zip(augment(clips), plain(clips), strict=True):
        assert view.is_contiguous(memory_format=torch.channels_last_3d)
        assert torch.equal(view, expected.bfloat16())
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in augment(images()))


class Threads(TorchDispatchMode):
    """Note with how many threads operators run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts.add(torch.get_num_threads())
        return func(*args, **(kwargs or {}))


def test_views_use_the_threads_that_their_loader_leaves_to_them() -> None:
    augmentation = Views("image")
    images = torch.zeros(2, 3, 1, 224, 224, dtype=torch.uint8)
    numbers = torch.zeros(2, dtype=torch.long)
    batch = Batch([images, images], numbers, numbers, numbers, torch.ones(2), [])
    torch.set_num_threads(2)
    try:
        for limit, expected in ((None, {2}), (1, {1}), (8, {2})):
            augmentation.num_threads = limit
            with Threads() as threads:
                augmentation(batch)
            assert threads.counts == expected
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
