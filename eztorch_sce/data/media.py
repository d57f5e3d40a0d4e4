"""File name suffixes of videos and images."""

import os

_VIDEO = "3g2 3gp asf avi divx dv f4v flv gif m2ts m4v mjpeg mkv mov mp4 mpeg mpg mts mxf ogg ogv ts vob webm wmv"
_IMAGE = "bmp jfif jp2 jpe jpeg jpg pbm pgm png ppm tif tiff webp"

VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEO.split())
IMAGE_SUFFIXES = frozenset(f".{name}" for name in _IMAGE.split())
MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES


def suffix_of(name: str) -> str:
    """Return the lower-case suffix of a file name, or an empty string.

    >>> suffix_of("clips/Holiday.MP4")
    '.mp4'
    """
    return os.path.splitext(name)[1].lower()
