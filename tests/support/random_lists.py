"""Random lists of files that know their own content, with separators, headers, encodings and what is wrong in them."""

import codecs
import csv
import io
import os
import random
from collections.abc import Callable
from typing import Any

from random_data import OTHERS, PLAIN_STEMS, STEMS, SUFFIXES, Plan, Truth, compose

_LABEL_NAMES = ("label", "target", "Category", "Label")
_CLASS_NAMES = ("class", "class_name")  # may hold names that are numbers beside other names
_PATH_NAMES = (
    "path",
    "video",
    "file",
    "filename",
    "image",
    "Video_Path",
    "file_path",
    "FileName",
)  # compared without case
_OTHER_COLUMNS = ("fps", "comment", "author")
_NAMED = ("cat", "Dog", "Zoë", "Zu\u0308g", "日本", "it's", "k=v", "[br]", "train_station")
_ENCODINGS = ("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-be with mark")


def random_list(rng: random.Random) -> Plan:
    """Return a plan of media files and one or two lists of them, with up to two things that are wrong."""
    lists = _Lists(rng)
    lists.add_records()
    if rng.random() < 0.4:
        wrong = lists.wrong()
        for add in rng.sample(wrong, min(len(wrong), rng.choice((1, 1, 2)))):
            add()
    for add in rng.sample(lists.harmless(), rng.randint(0, 3)):
        add()
    lists.write()
    return lists.plan


class _Lists:
    """Media files and their lists: rows of path and label by split."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.plan = rng, Plan()
        self.kind = rng.choice(("video", "video", "image", "image", "frames"))
        self.label_kind = rng.choice(("names", "names", "numbers", "none"))
        num_classes = rng.choice((2, 3))
        if self.label_kind == "names":
            self.classes = rng.sample(_NAMED, num_classes)
        else:
            self.classes = list(map(str, rng.sample(rng.choice((range(4), range(1, 5), range(0, 90, 7))), num_classes)))
        self.has_header = rng.random() < 0.6
        self.separator = rng.choice((",", "\t", ";", " ") if self.has_header else (",", "\t", " "))
        self.stems: tuple[str, ...] = STEMS if self.has_header and self.separator != " " else PLAIN_STEMS
        self.encodings = {split: rng.choice(_ENCODINGS) for split in ("train", "test")}
        if any(not encoding.startswith("utf-8") or encoding == "utf-8-sig" for encoding in self.encodings.values()):
            self.stems = tuple(stem for stem in self.stems if stem.isprintable())  # other bytes need plain UTF-8
        self.split_of_list = ["train", "test"] if rng.random() < 0.5 else ["train"]
        self.rows: dict[str, list[tuple[str, str | None]]] = {split: [] for split in self.split_of_list}
        self.base = rng.choice(("", "media"))  # paths are relative to the list, or to data.root
        self.folders = rng.sample(("one", "two/three", "Zoë", "x_y"), 2)
        self.with_backslashes = self.has_header and rng.random() < 0.1
        self.count = 0

    def new_path(self) -> str:
        self.count += 1
        letter = "abcdefghijklmnopqrstuvwxyz"[self.count % 26] + "xyz"[self.count // 26 % 3]
        folder, stem = self.rng.choice(self.folders), self.rng.choice(self.stems)
        suffix = "" if self.kind == "frames" else self.rng.choice(SUFFIXES[self.kind])
        return f"{folder}/{stem}{letter}{suffix}"

    def on_disk(self, path: str) -> str:
        """Return the place in the data set of a listed path."""
        return os.path.join(self.base, path)

    def add_record(self, split: str, label: str | None) -> None:
        """Add a file or a folder of frames, and a line of a list."""
        path = self.new_path()
        self._put(path)
        self.rows[split].append((path, label))
        self.plan.media[self.on_disk(path)] = self.truth(split, label)

    def _put(self, path: str) -> None:
        place = self.on_disk(path)
        names = [f"{place}/{number:05d}.jpg" for number in range(1, 4)] if self.kind == "frames" else [place]
        self.plan.files |= dict.fromkeys(names, b"")

    def add_records(self) -> None:
        for split in self.rows:
            for name in self.classes:
                label = None if self.label_kind == "none" else name
                for _ in range(self.rng.randint(2, 4)):
                    self.add_record(split, label)
            self.rng.shuffle(self.rows[split])

    def truth(self, split: str, label: str | None) -> Truth:
        return Truth(None if label is None else compose(label), split if len(self.rows) > 1 else None)

    def a_label(self) -> str | None:
        return None if self.label_kind == "none" else self.rng.choice(self.classes)

    def harmless(self) -> list[Callable[[], None]]:
        """Return functions that add what neither loses nor moves a record."""
        adding = [self._unlisted_record, self._unlisted_other_file, self._listed_link]
        return adding if self.kind == "frames" else [*adding, self._broken_link]

    def _unlisted_record(self) -> None:
        self._put(self.new_path())

    def _unlisted_other_file(self) -> None:
        self.plan.files[self.on_disk(self.rng.choice(OTHERS))] = b""

    def _listed_link(self) -> None:
        """A link is a record as any other file is, if the file itself is not listed."""
        target, link, label = self.new_path(), self.new_path(), self.a_label()
        self._put(target)
        self._list_link(link, target, label)

    def _broken_link(self) -> None:
        """Reading it says what is wrong; opening must not lose it."""
        self._list_link(self.new_path(), "nowhere", self.a_label())

    def _list_link(self, link: str, target: str, label: str | None) -> None:
        self.plan.links[self.on_disk(link)] = self.on_disk(target)
        self.rows["train"].append((link, label))
        self.plan.media[self.on_disk(link)] = self.truth("train", label)

    def wrong(self) -> list[Callable[[], None]]:
        """Return functions that add what must be refused."""
        adding = [self._missing_file, self._repeated_line, self._repeated_by_link]
        if self.kind != "frames":
            adding += [self._other_kind]
        if self.label_kind != "none":
            adding += [self._missing_label, self._two_labels]
        if self.label_kind == "names":
            adding += [self._case_twin]
        if self.label_kind == "numbers":
            adding += [self._name_among_numbers]
        if len(self.rows) > 1:
            adding += [self._file_in_both_lists, self._link_in_both_lists]
        if len(self.rows) > 1 and self.label_kind != "none":
            adding += [self._class_of_test_alone]
        return adding

    def _a_row(self, split: str) -> tuple[str, str | None]:
        return self.rng.choice([row for row in self.rows[split] if self.on_disk(row[0]) in self.plan.media])

    def _missing_file(self) -> None:
        split = self.rng.choice(list(self.rows))
        self.rows[split].append((self.new_path(), self.a_label()))
        self.plan.faults.append(r"\d+ of \d+ files? do(es)? not exist")

    def _repeated_line(self) -> None:
        split = self.rng.choice(list(self.rows))
        self.rows[split].append(self._a_row(split))
        self.plan.faults.append("are the same file")

    def _repeated_by_link(self) -> None:
        path, label = self._a_row("train")
        other = self.new_path()
        links = self.plan.links if self.kind == "frames" else self.rng.choice((self.plan.links, self.plan.hard_links))
        links[self.on_disk(other)] = self.on_disk(path)
        self.rows["train"].append((other, label))
        self.plan.faults.append(r"lists \d+ files? twice")

    def _other_kind(self) -> None:
        other = "image" if self.kind == "video" else "video"
        path = f"{self.folders[0]}/other{SUFFIXES[other][0]}"
        self.plan.files[self.on_disk(path)] = b""
        self.rows["train"].append((path, self.a_label()))
        self.plan.faults += [r"names \d+ \w+ and \d+ \w+", "give both the same kind of files"]

    def _missing_label(self) -> None:
        split = self.rng.choice(list(self.rows))
        self.add_record(split, "")
        lost_in_spaces = "|has no path|must be a whole number" if self.separator == " " else ""
        self.plan.faults.append(f"has no label{lost_in_spaces}")

    def _two_labels(self) -> None:
        path, label = self._a_row("train")
        other = next(name for name in self.classes if name != label)
        self.rows["train"].append((path, other))
        self.plan.faults.append("are the same file")

    def _case_twin(self) -> None:
        name = next((name for name in self.classes if name.swapcase() != name), None)
        if name is not None:
            for split in self.rows:
                self.add_record(split, name.swapcase())
            self.plan.faults.append("differ only in upper and lower case|differs only in upper and lower case")

    def _name_among_numbers(self) -> None:
        self.add_record("train", "dog")
        self.plan.faults.append("must be a whole number")

    def _file_in_both_lists(self) -> None:
        self.rows["test"].append(self._a_row("train"))
        self.plan.faults.append(r"in train .* and in test")

    def _link_in_both_lists(self) -> None:
        path, label = self._a_row("train")
        other = self.new_path()
        self.plan.links[self.on_disk(other)] = self.on_disk(path)
        self.rows["test"].append((other, label))
        self.plan.faults.append(r"in train .* and in test|lists \d+ files? twice")

    def _class_of_test_alone(self) -> None:
        name = "only here" if self.label_kind == "names" and self.has_header else "99"
        if self.label_kind == "names" and name == "99":
            name = "onlyhere"
        self.add_record("test", name)
        self.plan.faults.append("is not in the train split|has the labels")

    def write(self) -> None:
        """Add the lists to the plan, and the settings that name them."""
        self.plan.settings = {"root": f"@{self.base}"} if self.base else {}
        for split, rows in self.rows.items():
            name = f"{split}list{self.rng.choice(('.csv', '.txt'))}"
            self.plan.settings["list" if split == "train" else "test_list"] = f"@{name}"
            self.plan.files[name] = self._encoded(self._text(rows), self.encodings[split])

    def _text(self, rows: list[tuple[str, str | None]]) -> str:
        """Return the text of a list, with things that do not matter."""
        if self.with_backslashes:
            rows = [(path.replace("/", "\\"), label) for path, label in rows]
        if self.rng.random() < 0.3:  # written on a Mac, which decomposes accents, or on another system
            rows = [(compose(path), label) for path, label in rows]
        lines = self._lines_with_header(rows) if self.has_header else self._plain_lines(rows)
        for _ in range(self.rng.choice((0, 0, 1, 2))):
            self.plan.num_ignored += 1
            lines.insert(self.rng.randint(0, len(lines)), "# a comment")
        if self.rng.random() < 0.3:
            lines.insert(self.rng.randint(0, len(lines)), "")
        end = self.rng.choice(("\n", "\n", "\r\n", "\r"))
        return end.join(lines) + self.rng.choice(("", end))

    def _plain_lines(self, rows: list[tuple[str, str | None]]) -> list[str]:
        return [path if label is None else f"{path}{self.separator}{label}" for path, label in rows]

    def _lines_with_header(self, rows: list[tuple[str, str | None]]) -> list[str]:
        label_names = _LABEL_NAMES if "must be a whole number" in self.plan.faults else _LABEL_NAMES + _CLASS_NAMES
        path_name, label_name = self.rng.choice(_PATH_NAMES), self.rng.choice(label_names)
        table = [{path_name: path} | ({} if label is None else {label_name: label}) for path, label in rows]
        columns = [path_name] if self.label_kind == "none" else [path_name, label_name]
        if self.separator != " ":
            others = self.rng.sample(_OTHER_COLUMNS, self.rng.randint(0, 2))
            self.plan.num_ignored += len(others)
            columns += others
            table = [row | {name: self.rng.choice(("25", "by hand", "")) for name in others} for row in table]
        self.rng.shuffle(columns)
        stream = io.StringIO()
        quoting: Any = self.rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        writer = csv.DictWriter(stream, columns, delimiter=self.separator, quoting=quoting, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        return stream.getvalue().splitlines()

    def _encoded(self, text: str, encoding: str) -> bytes:
        if encoding == "utf-16-be with mark":
            return codecs.BOM_UTF16_BE + text.encode("utf-16-be")
        return text.encode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
