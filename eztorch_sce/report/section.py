"""A section of the page: its data, columns and images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Its template `template/sections/NAME.html` and its script `NAME.js` receive `data`. Names of columns and images are
    shared by all sections of a page, so they start with the name of the section.

    Attributes:
        name: Name of its files, and anchor of its heading.
        title: The heading.
        data: What JSON can hold, with all texts that come from users.
        columns: Arrays that the script reads with `page.column`; float64 and int64 are written as 32 bits.
        images: WebP files that the script reads with `page.image`.
    """

    name: str
    title: str
    data: Mapping[str, Any]
    columns: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    images: Mapping[str, bytes] = field(default_factory=dict)
