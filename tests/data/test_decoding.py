"""Image files: every format and mode of Pillow's, orientation, transparency, depth, sides; DICOM; refusals."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pydicom
import pydicom.dataset
import pydicom.uid
import pytest

from tfdpgen.data import DataError, Declared
from tfdpgen.data.decoding import decode

GREY, COLOUR = (12, 16, 1), (12, 16, 3)


def ramp() -> np.ndarray:
    """uint8 [12, 16]: brighter to the right, and a little to the bottom, so that no turn of it is itself."""
    return (np.arange(16) * 12 + np.arange(12)[:, None] * 5).astype(np.uint8)


def close(image: np.ndarray, expected: np.ndarray, most: float) -> None:
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    assert np.abs(image.astype(float) - expected).max() <= most


@pytest.mark.parametrize(
    ("name", "fmt", "most"),
    [
        ("a.png", "PNG", 0), ("a.PNG", "PNG", 0), ("a", "PNG", 0), ("a.jpg", "PNG", 0), ("a.jpeg", "JPEG", 6),
        ("a.jfif", "JPEG", 6), ("a.gif", "GIF", 0), ("a.bmp", "BMP", 0), ("a.tif", "TIFF", 0), ("a.webp", "WEBP", 12),
        ("a.pgm", "PPM", 0), ("a.tga", "TGA", 0), ("a.ico", "PNG", 0),
    ],
)  # fmt: skip
def test_every_format_under_every_name(tmp_path: Path, name: str, fmt: str, most: float) -> None:
    PIL.Image.fromarray(ramp()).save(tmp_path / name, format=fmt)
    close(decode(tmp_path / name, GREY, Declared()), ramp()[..., None], most)


@pytest.mark.parametrize("shape", [GREY, COLOUR])
@pytest.mark.parametrize(
    ("mode", "fmt", "most"),
    [
        ("1", "PNG", 0), ("L", "PNG", 0), ("LA", "PNG", 0), ("P", "PNG", 0), ("RGB", "PNG", 1), ("RGBA", "PNG", 1),
        ("CMYK", "JPEG", 8), ("YCbCr", "JPEG", 8), ("CMYK", "TIFF", 1), ("LAB", "TIFF", 3), ("1", "BMP", 0),
    ],
)  # fmt: skip
def test_every_mode_becomes_grey_or_colour_as_the_shape_says(
    tmp_path: Path, mode: str, fmt: str, most: float, shape: tuple[int, int, int]
) -> None:
    image = PIL.Image.fromarray(ramp())
    if mode == "P":
        image = image.quantize(256)
    elif mode == "LAB":
        image = PIL.Image.merge("LAB", [image, *[PIL.Image.new("L", (16, 12), 128)] * 2])
    elif mode != "L":
        image = image.convert(mode, dither=PIL.Image.Dither.NONE) if mode == "1" else image.convert("RGB").convert(mode)
    image.save(tmp_path / "a", format=fmt)
    decoded = decode(tmp_path / "a", shape, Declared())
    if mode == "LAB":  # its lightness is no grey level, but it rises with one
        assert decoded.shape == shape
        assert (np.diff(decoded[..., 0].astype(int), axis=1) > 0).all()
    else:
        expected = np.where(ramp() > 127, 255, 0).astype(np.uint8) if mode == "1" else ramp()
        close(decoded, np.repeat(expected[..., None], shape[2], axis=2), most)


def test_colour_is_kept_and_weighted_as_eyes_do(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (16, 12), (200, 100, 0)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", COLOUR, Declared())[0, 0].tolist() == [200, 100, 0]
    assert decode(tmp_path / "a.png", GREY, Declared())[0, 0, 0] == round(0.299 * 200 + 0.587 * 100)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, fmt: str, orientation: int) -> None:
    turn = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: lambda a: a.T, 6: np.rot90, 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a, -1),
    }[orientation]  # fmt: skip
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(np.ascontiguousarray(turn(ramp()))).save(tmp_path / "a", format=fmt, exif=exif)
    close(decode(tmp_path / "a", GREY, Declared()), ramp()[..., None], 0 if fmt in ("PNG", "TIFF") else 12)
    turned = decode(tmp_path / "a", (6, 8, 1), Declared(resize="stretch"))
    assert (np.diff(turned[..., 0].astype(int), axis=1) > 0).all()  # upright before it was resized


def test_damaged_metadata_are_forgiven(tmp_path: Path) -> None:
    for fmt in ("PNG", "JPEG", "WEBP"):
        PIL.Image.fromarray(ramp()).save(tmp_path / "a", format=fmt, exif=b"Exif\0\0no TIFF at all")
        close(decode(tmp_path / "a", GREY, Declared()), ramp()[..., None], 12)


@pytest.mark.parametrize(("background", "shown"), [((255,), 255), ((0,), 0), ((10, 20, 30), (10, 20, 30))])
def test_what_is_transparent_shows_the_background(tmp_path: Path, background: tuple[int, ...], shown: Any) -> None:
    pixels = np.zeros((12, 16, 4), np.uint8)
    pixels[:, 8:] = (50, 60, 70, 255)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    PIL.Image.fromarray(pixels).convert("LA").save(tmp_path / "grey.png")
    image = decode(tmp_path / "a.png", COLOUR, Declared(background=background))
    assert (image[:, :8] == shown).all()
    assert (image[:, 8:] == (50, 60, 70)).all()
    if len(background) == 1:
        assert (decode(tmp_path / "grey.png", GREY, Declared(background=background))[:, :8] == shown).all()


def test_a_transparent_palette_colour_shows_the_background(tmp_path: Path) -> None:
    image = PIL.Image.new("P", (16, 12), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.save(tmp_path / "a.gif", transparency=1)
    assert (decode(tmp_path / "a.gif", GREY, Declared(background=(77,))) == 77).all()


def test_of_several_frames_the_first_is_read(tmp_path: Path) -> None:
    frames = [PIL.Image.new("L", (16, 12), level) for level in (30, 90, 200)]
    for fmt in ("GIF", "TIFF", "WEBP"):
        frames[0].save(tmp_path / "a", format=fmt, save_all=True, append_images=frames[1:], lossless=True)
        assert (decode(tmp_path / "a", GREY, Declared()) == 30).all()


class TestDepth:
    @pytest.mark.parametrize("fmt", ["PNG", "TIFF", "PPM"])
    def test_16_bits_by_the_declared_range(self, tmp_path: Path, fmt: str) -> None:
        PIL.Image.fromarray(ramp().astype(np.uint16) * 257).save(tmp_path / "a", format=fmt)
        close(decode(tmp_path / "a", COLOUR, Declared(value_range=(0, 65535))), np.repeat(ramp()[..., None], 3, 2), 0)
        with pytest.raises(DataError, match=r"a holds values of more than 8 bits.*--value_range=0,65535"):
            decode(tmp_path / "a", GREY, Declared())
        with pytest.raises(DataError, match=r"a: `images` should lie in the declared `value_range` \(0.0, 4095.0\)"):
            decode(tmp_path / "a", GREY, Declared(value_range=(0.0, 4095.0)))

    def test_16_bits_a_colour_are_read_as_8(self, tmp_path: Path) -> None:
        pixels = np.zeros((12, 1 + 16 * 6), np.uint8)  # a filter and 16 big-endian colours a line
        pixels[:, 1::2], pixels[:, 2::2] = 200, 77
        (tmp_path / "a.png").write_bytes(png_header(16, 12, 16, pixels.tobytes()))
        assert (decode(tmp_path / "a.png", COLOUR, Declared()) == 200).all()

    def test_floats_by_the_declared_range(self, tmp_path: Path) -> None:
        PIL.Image.fromarray((ramp() / 255).astype(np.float32)).save(tmp_path / "a.tif")
        close(decode(tmp_path / "a.tif", GREY, Declared(value_range=(0, 1))), ramp()[..., None], 0)
        with pytest.raises(DataError, match="`value_range` should be that of float32 values"):
            decode(tmp_path / "a.tif", GREY, Declared(value_range=(0, 255)))

    def test_8_bits_are_0_to_255_unless_less_is_declared(self, tmp_path: Path) -> None:
        PIL.Image.fromarray(ramp() // 17).save(tmp_path / "a.png")
        assert decode(tmp_path / "a.png", GREY, Declared(value_range=(0, 65535))).max() == ramp().max() // 17
        assert decode(tmp_path / "a.png", GREY, Declared(value_range=(0, 15))).max() == ramp().max() // 17 * 17


class TestSides:
    @pytest.mark.parametrize(("width", "height"), [(32, 24), (40, 24), (24, 40), (8, 6), (16, 13)])
    @pytest.mark.parametrize("shape", [GREY, COLOUR])
    def test_stretch_crop_and_pad(self, tmp_path: Path, width: int, height: int, shape: tuple[int, int, int]) -> None:
        PIL.Image.new("L", (width, height), 100).save(tmp_path / "a.png")
        for resize in ("stretch", "crop"):
            assert (decode(tmp_path / "a.png", shape, Declared(resize=resize)) == 100).all()
        padded = decode(tmp_path / "a.png", shape, Declared(resize="pad", background=(7,)))
        assert padded.shape == shape
        inside = padded[..., 0] == 100
        scale = min(16 / width, 12 / height)
        assert inside.sum() == round(width * scale) * round(height * scale)
        assert (padded[~inside] == 7).all()
        with pytest.raises(DataError, match=rf"got {height}x{width}\. Have it resized by `--resize=crop`"):
            decode(tmp_path / "a.png", shape, Declared())

    def test_crop_keeps_the_middle_and_the_proportions(self, tmp_path: Path) -> None:
        pixels = np.zeros((12, 48), np.uint8)
        pixels[:, 16:32] = ramp()
        PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
        close(decode(tmp_path / "a.png", GREY, Declared(resize="crop")), ramp()[..., None], 0)

    def test_a_large_jpeg_is_decoded_no_larger_than_needed(self, tmp_path: Path) -> None:
        large = PIL.Image.fromarray(ramp()).resize((1600, 1200), PIL.Image.Resampling.BICUBIC)
        large.save(tmp_path / "a.jpg", quality=95)
        close(decode(tmp_path / "a.jpg", GREY, Declared(resize="stretch")), ramp()[..., None], 8)


def write_dicom(path: Path, pixels: np.ndarray, photometric: str = "MONOCHROME2", **attributes: Any) -> None:
    """A DICOM file by pydicom, with int16 or uint8 pixels."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    frames = pixels.shape[0] if pixels.ndim == 4 or (pixels.ndim == 3 and photometric != "RGB") else 1
    dataset.Rows, dataset.Columns = pixels.shape[1:3] if frames > 1 else pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if photometric == "RGB" else 1
    if photometric == "RGB":
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


class TestDicom:
    WINDOW = Declared(value_range=(-1000.0, 400.0))

    def test_the_declared_window_shows_the_modality_s_values(self, tmp_path: Path) -> None:
        units = np.linspace(-1200, 600, 192).reshape(12, 16)  # some outside the window
        stored = ((units + 1024) / 2).round().astype(np.int16)
        write_dicom(tmp_path / "scan", stored, RescaleSlope=2, RescaleIntercept=-1024)
        expected = np.clip((stored * 2.0 - 1024 + 1000) / 1400 * 255, 0, 255)[..., None]
        close(decode(tmp_path / "scan", GREY, self.WINDOW), expected, 0.51)
        write_dicom(tmp_path / "x.DCM", stored, "MONOCHROME1", RescaleSlope=2, RescaleIntercept=-1024)
        close(decode(tmp_path / "x.DCM", GREY, self.WINDOW), 255 - expected, 0.51)
        frames = np.stack([stored, stored * 0])
        write_dicom(tmp_path / "frames.dcm", frames, RescaleSlope=2, RescaleIntercept=-1024)
        close(decode(tmp_path / "frames.dcm", GREY, self.WINDOW), expected, 0.51)

    def test_colour(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(256, size=COLOUR, dtype=np.uint8)
        write_dicom(tmp_path / "a.dcm", pixels, "RGB")
        close(decode(tmp_path / "a.dcm", COLOUR, Declared()), pixels, 0)

    def test_refusals(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.dcm"
        write_dicom(path, np.zeros((12, 16), np.int16))
        with pytest.raises(
            DataError,
            match=r"a\.dcm is a DICOM file, and the window .* is not declared\. Declare it: `--value_range=-1000,400",
        ):
            decode(path, GREY, Declared())
        write_dicom(path, np.zeros((12, 16), np.int16), Rows=60000, Columns=60000)
        with pytest.raises(DataError, match=r"a\.dcm should have at most .* header declares 60000x60000"):
            decode(path, GREY, self.WINDOW)
        path.write_bytes(path.read_bytes()[:400])
        with pytest.raises(DataError, match=r"a\.dcm"):
            decode(path, GREY, self.WINDOW)
        path.write_bytes(b"no DICOM at all")
        with pytest.raises(DataError, match=r"a\.dcm"):
            decode(path, GREY, self.WINDOW)
        monkeypatch.setitem(sys.modules, "pydicom", None)
        with pytest.raises(
            DataError, match=r"a\.dcm is a DICOM file, which needs pydicom: pip install 'tfdpgen\[dicom\]'"
        ):
            decode(path, GREY, self.WINDOW)


def png_header(width: int, height: int, depth: int = 8, pixels: bytes = b"\0" * 1000) -> bytes:
    """A PNG in colour, of a few bytes, that may claim to be large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("resize", ["error", "crop"])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, resize: str) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(60_000, 60_000))
    with pytest.raises(DataError, match=r"bomb\.png should have at most 178,956,970 pixels"):
        decode(path, GREY, Declared(resize=resize))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Pillow knows no format"),
        (b"text", "Pillow knows no format"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 12\n",
            "Pillow knows no format",
        ),  # which Ghostscript would run
        (png_header(16, 12)[:45], "may be damaged"),
        (None, "cannot be read as an image"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.png .*{message}"):
        decode(path, GREY, Declared())


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"resize": "squeeze"}, "`resize` should be one of error, crop, pad, stretch; got 'squeeze'"),
        ({"background": (1, 2)}, "`background` should be one grey level or three"),
        ({"background": (256,)}, r"`background` .* got \(256,\)"),
        ({"num_classes": 1}, "`num_classes` should be at least 2; got 1"),
        ({"classes": ("a",)}, "`classes` should name at least 2, with commas between; got 'a' alone"),
        ({"classes": ("a", "b"), "num_classes": 3}, "`num_classes` should be 2, as many as `classes` names"),
        ({"classes": ("a", "a")}, "`classes` should all differ; 'a' is there twice"),
        ({"classes": ("a", " b")}, "`classes` should be words without white space at their ends.*' b'"),
        ({"classes": ("a", "b\nc")}, "`classes` should be words"),
        ({"classes": ("a", "")}, "`classes` should be words"),
        ({"image_shape": (28, 28)}, "`image_shape` should be 3 numbers"),
        ({"image_shape": (28, 28, 4)}, r"`image_shape` should be \(height, width, channels\)"),
        ({"value_range": (1.0, 0.0)}, "`value_range` should be finite"),
    ],
)
def test_malformed_declarations(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Declared(**facts)
