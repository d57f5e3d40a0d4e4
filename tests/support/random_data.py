"""Random data sets that know their own content: folders and lists as people have them, with what is wrong in them.

A data set is first a plan, which can be written to any folder in any order. The plan holds the truth: the class and the
split of each media file, how many things are to be counted as left out, and why the data may be refused, if at all.
"""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLASSES = (
    "cat",
    "Dog",
    "x y",
    "Zoë",
    "Zu\u0308g",
    "日本",
    "a,b",
    "it's",
    "[br]",
    "k=v",
    "x;y",
    '"q"',
    "-dash",
    "train_station",
)
STEMS = (
    "clip",
    "Zoë",
    "Zoe\u0308",
    "日本",
    "x y",
    "se;mi",
    "com,ma",
    "it's",
    'do"t',
    "[br]",
    "{c}",
    "k=v",
    "-d",
    "a.b",
    "\udcff\udcfe",
)
PLAIN_STEMS = ("clip", "Zoë", "日本", "under_score", "a.b", "UPPER", "k=v", "[br]")
SUFFIXES = {"video": (".mp4", ".avi", ".MKV", ".webm"), "image": (".jpg", ".PNG", ".jpeg", ".webp")}
TRAIN_NAMES = ("train", "Train", "TRAINING", "training")
TEST_NAMES = ("val", "Val", "VALID", "validation", "eval", "dev", "test", "Testing")
LEFTOVERS = ("Thumbs.db", ".DS_Store", "desktop.ini", "._clip.mp4", "movie.mp4.part")
LEFTOVER_FOLDERS = ("@eaDir", "__MACOSX", ".thumbnails", "$RECYCLE.BIN")
OTHERS = ("readme.txt", "notes.md", "clip.srt", "LICENSE", "old.bak")


@dataclass
class Truth:
    """What is known of a media file.

    Attributes:
        label: Class name in composed characters, or None.
        split: "train" or "test"; None if the test split is drawn.
    """

    label: str | None
    split: str | None


@dataclass
class Plan:
    """A data set before it is written.

    Attributes:
        files: Content of each file by its path in the data set.
        hard_links: Path of the file that each hard link is another name of.
        links: Path that each symbolic link points to, in the data set.
        folders: Folders without files.
        media: The media files that a run may use, and frame folders.
        settings: Settings of the data; values that start with @ are paths in the data set.
        num_ignored: Number of files, columns and comments that are to be counted as left out, without `num_leftovers`.
        num_leftovers: Number of leftovers of systems that are to be counted.
        faults: Regular expressions of the messages with which the data must be refused; none if they must be opened.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    hard_links: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    media: dict[str, Truth] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=lambda: {"root": "@"})
    num_ignored: int = 0
    num_leftovers: int = 0
    faults: list[str] = field(default_factory=list)

    def write(self, root: Path, order: random.Random) -> Path:
        """Write the data set to a new folder, its files in a random order."""
        root.mkdir()
        for folder in order.sample(self.folders, len(self.folders)):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for path in order.sample(list(self.files), len(self.files)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(self.files[path])
        for path in order.sample(list(self.hard_links), len(self.hard_links)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(root / self.hard_links[path], root / path)
        for path in order.sample(list(self.links), len(self.links)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(os.path.relpath(root / self.links[path], (root / path).parent), root / path)
        return root

    def settings_at(self, root: str) -> dict[str, Any]:
        """Return the settings of the data with paths below a folder."""
        return {
            name: os.path.join(root, value[1:]) if isinstance(value, str) and value.startswith("@") else value
            for name, value in self.settings.items()
        }


def compose(name: str) -> str:
    """Return a class name in composed characters."""
    return name.replace("u\u0308", "ü").replace("e\u0308", "ë")


def random_folder(rng: random.Random) -> Plan:
    """Return a plan of a tree of videos, images or frame folders, with up to two things that are wrong."""
    tree = _Tree(rng)
    tree.add_records()
    for add in rng.sample(tree.harmless(), rng.randint(0, 4)):
        add()
    if rng.random() < 0.4:
        wrong = tree.wrong() if rng.random() < 0.9 or tree.divided != "inside" else [tree.remove_train_folder]
        for add in rng.sample(wrong, min(len(wrong), rng.choice((1, 1, 2)))):
            add()
    return tree.plan


class _Tree:
    """A random tree: kind, classes and splits, to which things are added."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.plan = rng, Plan()
        self.kind = rng.choice(("video", "video", "image", "image", "frames"))
        num_classes = rng.choice((0, 1, 2, 3, 4)) if self.kind != "frames" else rng.choice((2, 3))
        self.classes = rng.sample(CLASSES, num_classes)
        divided = rng.choice(("no", "no", "inside", "test_root"))
        names: dict[str, dict[str | None, str]] = {
            "no": {None: ""},
            "inside": {"train": rng.choice(TRAIN_NAMES), "test": rng.choice(TEST_NAMES)},
            "test_root": {"train": "first", "test": "second"},
        }
        self.divided, self.folder_of = divided, names[divided]
        if divided == "test_root":
            self.plan.settings = {"root": "@first", "test_root": "@second"}
        self.layout = rng.choice(("auto", "auto", "auto", "folder", "unlabeled")) if divided == "no" else "auto"
        if self.layout != "auto":
            self.plan.settings["layout"] = self.layout
        self.is_labeled = num_classes > 1 and self.layout != "unlabeled"  # a single folder is not a class
        self.is_numbered = self.kind == "image" and rng.random() < 0.2  # 0001.jpg in a class folder is an image
        self.count = 0

    def class_folders(self, split: str | None) -> list[tuple[str, str | None]]:
        """Return the folders of the classes of a split, and the classes; the folder of the split without classes."""
        folder = self.folder_of[split]
        places = [(os.path.join(folder, name), compose(name) if self.is_labeled else None) for name in self.classes]
        return places or [(folder, None)]

    def a_place(self) -> tuple[str, str | None, str | None]:
        """Return a random folder of records, its class and its split."""
        split = self.rng.choice(list(self.folder_of))
        return *self.rng.choice(self.class_folders(split)), split

    def new_name(self) -> str:
        self.count += 1
        if self.is_numbered:
            return f"{self.count:05d}"
        letter = "abcdefghijklmnopqrstuvwxyz"[self.count % 26] + "xyz"[self.count // 26 % 3]
        return f"{self.rng.choice(STEMS)}{letter}"  # without digits, so that images are no frames

    def add_record(self, folder: str, label: str | None, split: str | None) -> str:
        """Add a video, an image or a folder of frames, and return its path."""
        path = os.path.join(folder, self.new_name())
        if self.kind == "frames":
            for number in range(1, self.rng.randint(3, 5)):
                self.plan.files[os.path.join(path, f"{number:05d}.jpg")] = b""
        else:
            path += self.rng.choice(SUFFIXES[self.kind])
            self.plan.files[path] = b""
        self.plan.media[path] = Truth(label, split)
        return path

    def add_records(self) -> None:
        for split in self.folder_of:
            for folder, label in self.class_folders(split):
                may_nest = self.classes and self.kind != "frames" and not self.is_numbered
                nested = self.rng.choice(("", "", "part")) if may_nest else ""
                for _ in range(self.rng.randint(1, 4) + (split is None)):
                    self.add_record(os.path.join(folder, nested), label, split)

    def harmless(self) -> list[Any]:
        """Return functions that add what neither loses nor moves a record."""
        adding = [self._leftover, self._leftover_folder, self._other_file, self._loop, self._broken_text_link]
        if self.kind != "frames":
            adding += 2 * [self._link_in_class, self._hard_link_in_class] + [self._linked_folder, self._broken_link]
            adding += [self._other_kind_with_choice]
        if self.classes:
            adding += [self._empty_class]
        if self.divided == "inside":
            adding += [self._other_file_beside_splits]
        return adding

    def _leftover(self) -> None:
        path = os.path.join(self.a_place()[0], self.rng.choice(LEFTOVERS))
        self.plan.num_leftovers += path not in self.plan.files
        self.plan.files[path] = b""

    def _leftover_folder(self) -> None:
        folder = os.path.join(self.a_place()[0], self.rng.choice(LEFTOVER_FOLDERS))
        self.plan.num_leftovers += 1
        self.plan.files[os.path.join(folder, "SYNOPHOTO_THUMB.jpg")] = b""

    def _other_file(self) -> None:
        self._add_other_file(self.a_place()[0])

    def _add_other_file(self, folder: str) -> None:
        path = os.path.join(folder, self.rng.choice(OTHERS))
        self.plan.num_ignored += path not in self.plan.files
        self.plan.files[path] = b""

    def _other_file_beside_splits(self) -> None:
        self._add_other_file("")

    def _loop(self) -> None:
        folder, _, split = self.a_place()
        above = folder if folder == self.folder_of[split] else os.path.dirname(folder)
        self.plan.links[os.path.join(folder, "loop")] = above or "."

    def _broken_text_link(self) -> None:
        self.plan.links[os.path.join(self.a_place()[0], "gone.txt")] = "nowhere.txt"

    def _link_in_class(self) -> None:
        """A second name of a record in the same class: allowed, but never in the other split."""
        self._name_again("again", self.plan.links)

    def _hard_link_in_class(self) -> None:
        self._name_again("hard", self.plan.hard_links)

    def _name_again(self, stem: str, links: dict[str, str]) -> None:
        path = self.rng.choice(list(self.plan.media))
        again = os.path.join(os.path.dirname(path), stem + os.path.splitext(path)[1])
        if again not in self.plan.media and path in self.plan.files:
            links[again] = path
            self.plan.media[again] = self.plan.media[path]

    def _linked_folder(self) -> None:
        """Records in a folder elsewhere, which a class (or the tree without classes) links to."""
        folder, label, split = self.a_place()
        link = os.path.join(folder, "linked")
        if "linked_root" in self.plan.settings or link in self.plan.links:
            return
        if self.divided == "no":
            return  # the target would lie in the same tree and be read twice
        target = f"elsewhere-{self.count}"
        if self.divided == "inside":
            target = os.path.join("docs", ".hidden", target)  # beside the splits, without media that are seen there
        name = self.new_name() + SUFFIXES[self.kind][0]
        self.plan.files[os.path.join(target, name)] = b""
        self.plan.links[link] = target
        self.plan.media[os.path.join(link, name)] = Truth(label, split)

    def _broken_link(self) -> None:
        """A record that cannot be read: reading it says so; opening must not lose it."""
        folder, label, split = self.a_place()
        path = os.path.join(folder, "broken" + SUFFIXES[self.kind][0])
        if path not in self.plan.links:
            self.plan.links[path] = "nowhere"
            self.plan.media[path] = Truth(label, split)

    def _empty_class(self) -> None:
        self.plan.folders.append(os.path.join(self.folder_of[self.rng.choice(list(self.folder_of))], "no media"))

    def _other_kind_with_choice(self) -> None:
        self.plan.settings["kind"] = self.kind
        self.plan.num_ignored += 1
        self.plan.files[os.path.join(self.a_place()[0], self._other_kind_name())] = b""

    def _other_kind_name(self) -> str:
        other = "image" if self.kind == "video" else "video"
        return self.new_name() + self.rng.choice(SUFFIXES[other])

    def wrong(self) -> list[Any]:
        """Return functions that add what must be refused."""
        adding = []
        if self.kind != "frames" and "kind" not in self.plan.settings:
            adding += [self._other_kind]
        if self.is_labeled:
            adding += [self._case_twin]
        if self.is_labeled and self.layout == "auto":
            adding += [self._stray_record]
        if self.is_labeled and self.kind != "frames":
            adding += 2 * [self._link_to_other_class]
        if self.divided != "no" and self.kind != "frames":
            adding += 2 * [self._link_to_other_split]
        if self.divided != "no" and self.is_labeled:
            adding += [self._class_of_test_alone]
        if self.divided == "inside":
            adding += [self._unknown_split, self._second_train_folder]
        return adding

    def _other_kind(self) -> None:
        self.plan.files[os.path.join(self.a_place()[0], self._other_kind_name())] = b""
        self.plan.faults.append(r"mixes \d+ videos? .* with \d+ images?")

    def _stray_record(self) -> None:
        split = self.rng.choice(list(self.folder_of))
        path = self.add_record(self.folder_of[split], None, split)
        del self.plan.media[path]
        self.plan.faults.append(r"lies? beside \d+ folders?")
        if self.kind == "frames":  # a folder of images at the level of the classes may be a class, too
            self.plan.faults.append(r"numbered|beside|is not in the train split")

    def _case_twin(self) -> None:
        name = next((name for name in self.classes if len(name) > 1 and name.swapcase() != name), None)
        if name is not None:
            for split, folder in self.folder_of.items():
                self.add_record(os.path.join(folder, name.swapcase()), name.swapcase(), split)
            self.plan.faults.append("differ only in upper and lower case")

    def _link_to_other_class(self) -> None:
        path = self._a_file()
        truth = self.plan.media[path]
        others = [place for place in self.class_folders(truth.split) if place[1] != truth.label]
        self._link(path, self.rng.choice(others)[0])
        self.plan.faults.append("two labels")

    def _link_to_other_split(self) -> None:
        path = self._a_file()
        truth = self.plan.media[path]
        other = "test" if truth.split == "train" else "train"
        folder = next(folder for folder, label in self.class_folders(other) if label == truth.label)
        self._link(path, folder)
        self.plan.faults.append(r"in train .* and in test")

    def _a_file(self) -> str:
        """Return a record that is a file of one of the classes."""
        labels = {label for split in self.folder_of for _, label in self.class_folders(split)}
        media = self.plan.media
        return self.rng.choice([path for path in media if path in self.plan.files and media[path].label in labels])

    def _link(self, path: str, folder: str) -> None:
        target = os.path.join(folder, self.new_name() + os.path.splitext(path)[1])
        links = self.rng.choice((self.plan.links, self.plan.hard_links))
        links[target] = path

    def _class_of_test_alone(self) -> None:
        self.add_record(os.path.join(self.folder_of["test"], "only here"), "only here", "test")
        self.plan.faults.append("'only here' is not in the train split")

    def _unknown_split(self) -> None:
        self.add_record("extra", None, None)
        self.plan.faults.append("extra, which is no known split")

    def _second_train_folder(self) -> None:
        name = "training" if self.folder_of["train"].lower() == "train" else "train"
        self.add_record(name, None, None)
        self.plan.faults.append("two names for one split")

    def remove_train_folder(self) -> None:
        start = self.folder_of["train"] + os.sep
        self.plan.files = {path: content for path, content in self.plan.files.items() if not path.startswith(start)}
        for path, target in list(self.plan.links.items()) + list(self.plan.hard_links.items()):
            if target.startswith(start) or path.startswith(start):
                self.plan.links.pop(path, None)
                self.plan.hard_links.pop(path, None)
        self.plan.folders = [folder for folder in self.plan.folders if not folder.startswith(start)]
        self.plan.faults = [r"but no folder train"]
