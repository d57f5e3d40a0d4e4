"""File name suffixes of videos and images."""

import os
from importlib.util import find_spec

_VIDEO = "3g2 3gp asf avi divx dv f4v flv gif m2ts m4v mjpeg mkv mov mp4 mpeg mpg mts mxf ogg ogv ts vob webm wmv"
_IMAGE = "apng bmp j2k jfif jp2 jpe jpeg jpg jpx pbm pgm png pnm ppm tif tiff webp"
# Images that not every installation reads: the module that does, and what installs it.
_OPTIONAL = {
    "avif": ("PIL._avif", "pip install 'pillow>=11.3'"),
    "heic": ("pillow_heif", "pip install 'eztorch-sce[heif]'"),
    "heif": ("pillow_heif", "pip install 'eztorch-sce[heif]'"),
    "hif": ("pillow_heif", "pip install 'eztorch-sce[heif]'"),
}


def _cures() -> dict[str, str]:
    """Return what installs a reader of each image suffix that cannot be read here."""
    return {f".{name}": cure for name, (module, cure) in _OPTIONAL.items() if find_spec(module) is None}


VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEO.split())
UNREADABLE_SUFFIXES = _cures()
"""Suffixes of images that need a package which is not installed, with the command that installs it."""
IMAGE_SUFFIXES = frozenset(f".{name}" for name in (*_IMAGE.split(), *_OPTIONAL)) - UNREADABLE_SUFFIXES.keys()
MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES
KNOWN_SUFFIXES = MEDIA_SUFFIXES | UNREADABLE_SUFFIXES.keys()
"""Suffixes of media, readable here or not: a list means the same on every machine."""

AVIF, HEIC = "an AVIF image", "a HEIC image"
"""What `content_of` calls them; HEIC is what iPhones write."""
_SIGNATURES = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG\r\n", "a PNG image"),
    (b"GIF8", "a GIF animation"),
    (b"BM", "a BMP image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\x1aE\xdf\xa3", "a Matroska video"),
    (b"FLV\x01", "an FLV video"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file; run `git lfs pull`"),
)
_BRANDS = {
    b"avif": AVIF,
    b"avis": AVIF,
    b"heic": HEIC,
    b"heix": HEIC,
    b"hevc": HEIC,
    b"mif1": HEIC,
    b"msf1": HEIC,
}


def suffix_of(name: str) -> str:
    """Return the lower-case suffix of a file name, or an empty string.

    >>> suffix_of("clips/Holiday.MP4")
    '.mp4'
    """
    return os.path.splitext(name)[1].lower()


def ignored_as(suffix: str) -> str:
    """Return the words under which `Manifest.ignored` counts files left out for their suffix.

    They are the suffix, and the command that installs a reader if there is one.

    >>> ignored_as(".txt"), ignored_as("")
    ('.txt', 'without suffix')
    """
    cure = UNREADABLE_SUFFIXES.get(suffix)
    return f"{suffix} ({cure})" if cure else suffix or "without suffix"


def content_of(head: bytes) -> str:
    """Return what a file is by its first bytes, such as "a JPEG image" or "an HTML page"; "" if that is unknown.

    >>> content_of(b"<!DOCTYPE html><html>")
    'an HTML page'
    """
    for signature, content in _SIGNATURES:
        if head.startswith(signature):
            return content
    if head[:4] == b"RIFF":
        return {b"WEBP": "a WebP image", b"AVI ": "an AVI video"}.get(head[8:12], "")
    if head[4:8] == b"ftyp":
        brand = b"avif" if b"avif" in head[:64] else head[8:12]  # "mif1" may be the first of several
        return _BRANDS.get(brand, "an MP4 video")
    text = head[:256].lstrip().lower()
    return "an HTML page" if text.startswith((b"<!doctype html", b"<html")) else ""
