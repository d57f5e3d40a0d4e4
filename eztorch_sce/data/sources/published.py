"""How many files and classes the publishers of the data sets name.

Sources: UCF101: Soomro et al., arXiv:1212.0402, the lists of its three splits. HMDB51: Kuehne et al., ICCV 2011: 70
videos to train and 30 to test of each action. Something-Something v2: its label files. ImageNet: ILSVRC 2012,
Russakovsky et al., IJCV 2015. ImageNet-100 keeps 100 classes of it, whose training images nobody but the list can
count. Tiny-ImageNet: the Stanford CS231n challenge. CIFAR: Krizhevsky 2009. STL-10: Coates et al., AISTATS 2011.
Kinetics: Kay et al., arXiv:1705.06950; Carreira et al., arXiv:1808.01340 and arXiv:1907.06987; its 200 classes: Xie et
al., ECCV 2018, arXiv:1712.04851. Their test part has no public labels, so it is the validation part that is tested on.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """The published numbers of one split; None where none is published.

    Attributes:
        train, test: Files of the part.
        classes: Of both parts.
        train_each, test_each: Files of each class, where all classes have the same.
        lists_differ: The publisher's lists name a few files more or fewer than its paper counts: where there is a list,
            it is what tells.
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
    """Return the numbers of a layout; a set without splits has but one, and a split that is none has none."""
    splits = _SPLITS.get(layout, (Published(),))
    if len(splits) == 1:
        return splits[0]
    return splits[split - 1] if split <= len(splits) else Published()
