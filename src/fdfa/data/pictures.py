"""Decodes one picture file into bytes of a known shape, by Pillow."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from fdfa.data.reading import refuse
from fdfa.errors import ConfigError, DataError, briefly

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PictureForm", "form_of", "read_picture", "require_pillow"]

# The fewer decoders can be reached, the less a hostile file can try.
FORMATS: Final = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
GREY: Final = {"1", "L", "LA"}
COLOUR: Final = {"P", "RGB", "RGBA", "CMYK", "YCbCr"}
# 96 MB in colour: several times what a camera makes. A file of some kilobytes may claim more.
MOST_PIXELS = 2**25
REPLACE = "Replace or remove the file."


@dataclasses.dataclass(frozen=True)
class PictureForm:
    """What every picture of a data set has to become.

    Args:
        colour: whether in colour (3 channels) or grey (1).
        height: in pixels.
        width: in pixels.
        fit: whether a picture of another size is scaled and cropped, or else refused.
        convert: whether a picture in colour may be made grey, or else is refused.

    Example:
        >>> PictureForm(colour=True, height=64, width=64, fit=True, convert=True).shape
        (3, 64, 64)
    """

    colour: bool
    height: int
    width: int
    fit: bool
    convert: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (3 if self.colour else 1, self.height, self.width)


def require_pillow() -> None:
    """Sees that Pillow is there.

    Raises:
        ConfigError: if it is not.

    Example:
        >>> require_pillow()
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "pictures are decoded by Pillow, which is not installed. Install it: "
            "pip install 'fdfa[images]'."
        ) from error


def form_of(path: Path, *, size: int | None, colour: bool | None) -> PictureForm:
    """What all pictures have to become, by the first of them.

    Args:
        path: the first picture.
        size: height and width; None for those of the first.
        colour: whether in colour; None for as the first.

    Returns:
        The form.

    Raises:
        DataError: if the picture cannot be decoded.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "first.png"
        ...     Image.new("L", (5, 4)).save(path)
        ...     form_of(path, size=None, colour=None).shape
        (1, 4, 5)
    """
    image = _decoded(path)
    return PictureForm(
        colour=image.mode in COLOUR if colour is None else colour,
        height=size or image.height,
        width=size or image.width,
        fit=size is not None,
        convert=colour is not None,
    )


def read_picture(path: Path, form: PictureForm) -> Tensor:
    """Decodes a picture.

    Args:
        path: the file.
        form: what it has to become.

    Returns:
        uint8 of shape (C, H, W).

    Raises:
        DataError: if the file cannot be read, is no picture, is cut off or damaged, or cannot
            become what it has to.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> form = PictureForm(colour=False, height=1, width=2, fit=False, convert=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "picture.png"
        ...     Image.new("L", (2, 1), color=7).save(path)
        ...     read_picture(path, form)
        tensor([[[7, 7]]], dtype=torch.uint8)
    """
    image = _decoded(path)
    if image.mode in COLOUR and not form.colour and not form.convert:
        refuse(
            path,
            "is in colour, but the first picture is grey",
            remedy="Choose with the option colour: True makes all RGB, False makes all grey.",
        )
    if image.size != (form.width, form.height) and not form.fit:
        refuse(
            path,
            f"is of {image.width} x {image.height} pixels, but the first picture of {form.width} x "
            f"{form.height}",
            remedy="Choose a size, to which all are scaled and cropped, or make all the same.",
        )
    channels, height, width = form.shape
    with _decoding(path):
        content = bytearray(_fitted(image, form).tobytes())
    pixels = torch.frombuffer(content, dtype=torch.uint8).reshape(height, width, channels)
    return pixels.permute(2, 0, 1).contiguous()


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turns all that Pillow may raise into the error of a bad file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a size that is looked at here, of odd metadata
            yield
    except DataError:
        raise
    except Exception as error:  # its decoders answer damaged files with nearly every exception
        refuse(path, f"cannot be decoded: {briefly(error)}", remedy=REPLACE, cause=error)


def _decoded(path: Path) -> Image:
    """The whole picture, as it is in the file."""
    from PIL import Image

    if not path.is_file():
        refuse(path, "is no file (any more)", remedy="Put it back, or load the data set again.")
    with _decoding(path), Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            refuse(
                path,
                f"claims {image.width} x {image.height} pixels, more than the {MOST_PIXELS:,} that "
                "are read",
                remedy=REPLACE,
            )
        if image.mode not in GREY | COLOUR:
            refuse(
                path,
                f"has pixels of the kind {image.mode!r}, not bytes",
                remedy="Convert it to 8 bits a channel.",
            )
        image.load()
    return image


def _fitted(image: Image, form: PictureForm) -> Image:
    """The largest middle part of the right proportions, scaled where it is of another size."""
    from PIL import Image

    # In one step: to scale first would turn a picture of 1 x 30,000,000 pixels into gigabytes.
    scale = min(image.width / form.width, image.height / form.height)
    width, height = scale * form.width, scale * form.height
    left, top = max(0, (image.width - width) / 2), max(0, (image.height - height) / 2)
    return image.convert("RGB" if form.colour else "L").resize(
        (form.width, form.height),
        Image.Resampling.BILINEAR,
        box=(left, top, min(left + width, image.width), min(top + height, image.height)),
    )
