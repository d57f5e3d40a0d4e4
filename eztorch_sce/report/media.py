"""Thumbnails and animations of the records of a page."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Media:
    """Pictures of the records of a sample."""
