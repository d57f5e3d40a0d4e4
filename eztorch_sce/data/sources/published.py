"""Numbers of files and classes reported by the publishers of the data sets.

Sources: UCF101: Soomro et al., arXiv:1212.0402, and the lists of its three splits. HMDB51: Kuehne et al., ICCV 2011; 70
training and 30 test videos per action. Something-Something v2: its label files. ImageNet: ILSVRC 2012, Russakovsky et
al., IJCV 2015. ImageNet-100 keeps 100 of its classes; the number of training images depends on the list.
Tiny-ImageNet: the Stanford CS231n challenge. CIFAR: Krizhevsky 2009. STL-10: Coates et al., AISTATS 2011.
Kinetics: Kay et al., arXiv:1705.06950; Carreira et al., arXiv:1808.01340 and arXiv:1907.06987; its 200 classes: Xie et
al., ECCV 2018, arXiv:1712.04851. Where the test labels are not public, the validation split is the test split here.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """Published counts of one official split; None if a count is not published.

    Attributes:
        train, test: Files in the train and the test split.
        classes: Classes, the same in both.
        train_each, test_each: Files per class, if it is the same for all classes.
        lists_differ: Whether the publisher's lists name a few more or fewer files than its paper; a list then takes
            precedence.
    """

    train: int | None = None
    test: int | None = None
    classes: int | None = None
    train_each: int | None = None
    test_each: int | None = None
    lists_differ: bool = False


_SPLITS: dict[str, tuple[Published, ...]] = {
    "imagenet": (Published(1281167, 50000, 1000, None, 50),),
    "imagenet100": (Published(None, 5000, 100, None, 50),),
    "tiny_imagenet": (Published(100000, 10000, 200, 500, 50),),
    "cifar10": (Published(50000, 10000, 10, 5000, 1000),),
    "cifar100": (Published(50000, 10000, 100, 500, 100),),
    "stl10": (Published(5000, 8000, 10, 500, 800),),
    "stl10_unlabeled": (Published(105000),),
    "kinetics200": (Published(80000, 5000, 200, 400, 25, lists_differ=True),),
    "kinetics400": (Published(246245, 20000, 400, None, 50, lists_differ=True),),
    "kinetics600": (Published(392622, 30000, 600, None, 50, lists_differ=True),),
    "kinetics700": (Published(545317, 35000, 700, None, 50, lists_differ=True),),
    "ucf101": (Published(9537, 3783, 101), Published(9586, 3734, 101), Published(9624, 3696, 101)),
    "hmdb51": (Published(3570, 1530, 51, 70, 30),) * 3,
    "ssv2": (Published(168913, 24777, 174),),
}


def published(layout: str, split: int) -> Published:
    """Return the published counts of a layout.

    Args:
        layout: Name of the layout.
        split: Number of the official split; ignored if the data set has only one.
    """
    splits = _SPLITS.get(layout, (Published(),))
    if len(splits) == 1:
        return splits[0]
    return splits[split - 1] if split <= len(splits) else Published()
