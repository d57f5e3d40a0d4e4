"""Names of files and folders that no data set means: hidden ones, and what systems and programs leave behind."""

import os

HIDDEN, LEFTOVER = "hidden", "system leftovers"

_NAMES = frozenset(
    name.lower()
    for name in (
        *("@eaDir", "@tmp", "@Recycle", "@Recently-Snapshot", "#recycle", "#snapshot"),  # Synology, QNAP
        *("__MACOSX", ".DS_Store", ".AppleDouble", ".Spotlight-V100", ".Trashes", ".fseventsd", ".TemporaryItems"),
        *(".DocumentRevisions-V100", ".VolumeIcon.icns", ".localized", "Icon\r"),
        *("Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$RECYCLE.BIN", "RECYCLER", "RECYCLED"),
        *("System Volume Information", "pagefile.sys", "lost+found", ".directory"),
        *(".git", ".svn", ".hg", ".dvc", ".idea", ".vscode", ".cache", "__pycache__", ".ipynb_checkpoints"),
        *(".thumbnails", ".thumbs", ".picasa.ini", "Picasa.ini"),
    )
)
_STARTS = ("._", ".trash", ".fuse_hidden", ".nfs", ".~lock.", "~$", ".syncthing.", ".smbdelete")
_PARTIAL = frozenset(
    {".part", ".partial", ".crdownload", ".download", ".opdownload", ".aria2", ".!qb", ".!ut", ".ytdl"}
)
"""Suffixes of downloads that are not complete."""


def skipped_as(name: str) -> str | None:
    """Return why a file or folder is skipped by its name, `HIDDEN` or `LEFTOVER`, or None if it is not.

    >>> skipped_as("Thumbs.db"), skipped_as(".secret.mp4"), skipped_as("a.mp4")
    ('system leftovers', 'hidden', None)
    """
    lower = name.lower()
    if lower in _NAMES or lower.startswith(_STARTS) or os.path.splitext(lower)[1] in _PARTIAL:
        return LEFTOVER
    return HIDDEN if name.startswith(".") else None
