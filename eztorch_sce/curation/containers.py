"""Video files that hold a second file, joined to the first with `cat`: FFmpeg reads the first and ignores the rest."""

import os
from typing import BinaryIO

_FLV = b"FLV\x01"
_SEGMENT, _EBML = b"\x18\x53\x80\x67", b"\x1a\x45\xdf\xa3"


def second_file_at(path: str) -> int | None:
    """Return the byte at which a second MP4, AVI, FLV or Matroska file begins, or None."""
    with open(path, "rb") as file:
        head = file.read(12)
        if head[4:8] == b"ftyp":
            return _second_mp4(file)
        if head[:4] == b"RIFF":
            return _second_avi(file, head)
        if head[:4] == _FLV:
            return _second_flv(file)
        return _second_matroska(file) if head[:4] == _EBML else None


def _second_mp4(file: BinaryIO) -> int | None:
    """Walk the top-level boxes up to the second `ftyp`."""
    start, num_bytes = 0, file.seek(0, os.SEEK_END)
    while start + 8 <= num_bytes:
        file.seek(start)
        header = file.read(16)
        if start and header[4:8] == b"ftyp":
            return start
        length = int.from_bytes(header[:4], "big")
        length = int.from_bytes(header[8:16], "big") if length == 1 else length
        if length < 8:
            return None  # the last box, which reaches to the end of the file, or no box at all
        start += length
    return None


def _second_avi(file: BinaryIO, head: bytes) -> int | None:
    """Skip the chunks of one AVI file: `AVI `, and `AVIX` for each further gigabyte."""
    start = 0
    while head[:4] == b"RIFF":
        if start and head[8:12] == b"AVI ":
            return start
        start += 8 + int.from_bytes(head[4:8], "little")
        file.seek(start)
        head = file.read(12)
    return None


def _second_flv(file: BinaryIO) -> int | None:
    """Skip the tags, each of which is a packet, behind the header of 9 bytes and a length of 4 bytes."""
    start = 13
    while True:
        file.seek(start)
        header = file.read(11)
        if header[:4] == _FLV:
            return start
        if len(header) < 11:
            return None
        start += 11 + int.from_bytes(header[1:4], "big") + 4


def _second_matroska(file: BinaryIO) -> int | None:
    """Skip the header and the segment, whose lengths are known unless the file was streamed live."""
    start = 0
    for expected in (_EBML, _SEGMENT):
        file.seek(start)
        header = file.read(12)
        width = (
            9 - header[4].bit_length() if len(header) == 12 else 0
        )  # bytes of the length; it begins with width - 1 zeros
        length = int.from_bytes(header[4 : 4 + width], "big") & (1 << 7 * width) - 1
        if header[:4] != expected or not 1 <= width <= 8 or length == (1 << 7 * width) - 1:
            return None
        start += 4 + width + length
    file.seek(start)
    return start if file.read(4) == _EBML else None
