from __future__ import annotations

import pytest

from polyres.core.errors import InputError
from polyres.dsp.axes import check_axes, scale_warning


@pytest.mark.parametrize("shape", [(2, 1), (64, 1), (65, 65), (200, 44_100), (5,), (4, 2, 44_100), (100, 2, 3), (2, 0)])
def test_channels_come_first(shape: tuple[int, ...]) -> None:
    check_axes(shape)


@pytest.mark.parametrize(
    ("shape", "mended"), [((44_100, 2), r"x\.T"), ((65, 1), r"x\.T"), ((4, 44_100, 2), r"x\.swapaxes\(-1, -2\)")]
)
def test_swapped_axes_are_refused(shape: tuple[int, ...], mended: str) -> None:
    with pytest.raises(InputError, match=rf"^x of shape .* would have {shape[-2]} channels of .* give {mended}$"):
        check_axes(shape, "x")


def test_the_scale_of_integers_is_told() -> None:
    assert scale_warning(8.0) is None
    told = scale_warning(29_491.25)
    assert told == "has samples up to 29491.2 where full scale is 1; if they are 16-bit integers, divide them by 32768"
