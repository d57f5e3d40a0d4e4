"""Tests of the forms that lists have: separators, headers, quotes, comments and encodings."""

from pathlib import Path

import pyarrow as pa
import pytest
from data_sets import open_layout, summary, touch, write
from pyarrow import feather, parquet

from eztorch_sce.data.sources.list_file import from_list
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.errors import ConfigError

RUN_AND_SWIM = [("a.mp4", 0, "video"), ("b.mp4", 1, "video")]


def opened(folder: Path, text: str | bytes, name: str = "list.csv") -> Manifest:
    content = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(content)
    return from_list(folder / name)


@pytest.mark.parametrize("separator", [",", ", ", "\t", ";", " ; ", " ", "   ", "|", " \t "])
@pytest.mark.parametrize("header", ["path{0}label", "label{0}path", "{0}path{0}label", ""])
def test_any_separator_is_recognized_with_and_without_a_header(tmp_path: Path, separator: str, header: str) -> None:
    if header.startswith("{0}") and not separator.strip():
        return  # a first column without a name, as pandas writes, cannot be separated by spaces
    touch(tmp_path, "a.mp4", "b.mp4")
    rows = [("a.mp4", "run"), ("b.mp4", "swim")]
    order = [1, 0] if header.startswith("label") else [0, 1]
    lines = [header.format(separator)] if header else []
    for number, row in enumerate(rows):
        index = [str(number)] if header.startswith("{0}") else []
        lines.append(separator.join([*index, *(row[column] for column in order)]))
    manifest = opened(tmp_path, "\n".join(lines) + "\n")
    assert summary(manifest, tmp_path) == RUN_AND_SWIM
    assert manifest.classes == ["run", "swim"]


@pytest.mark.parametrize(
    "header",
    [
        "path,label", "Path,Label", "PATH,CLASS", "video,target", "File,Category", "filename,class", "image,label",
        "file_path,class_name", "filepath,label_name", "video_path,action", "Image Path,Class Name",
        "videoPath,labelId", "img_path,category_id", "id,label", '"path","label"', "#path,label", "# path,label",
        "frame_dir,label",
    ],
)  # fmt: skip
def test_columns_have_many_names(tmp_path: Path, header: str) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    assert summary(opened(tmp_path, f"{header}\na.mp4,run\nb.mp4,swim\n"), tmp_path) == RUN_AND_SWIM


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "mark-be", "mark-le", "utf-32"]
)
def test_any_encoding_and_line_end_is_read(tmp_path: Path, encoding: str, end: str) -> None:
    touch(tmp_path, "fête.mp4", "b.mp4")
    text = end.join(["path,label", "fête.mp4,übung", "b.mp4,swim", ""])
    marked = {"mark-be": b"\xfe\xff" + text.encode("utf-16-be"), "mark-le": b"\xff\xfe" + text.encode("utf-16-le")}
    manifest = opened(tmp_path, marked.get(encoding) or text.encode(encoding))
    assert summary(manifest, tmp_path) == [("fête.mp4", 1, "video"), ("b.mp4", 0, "video")]
    assert manifest.classes == ["swim", "übung"]


def test_file_names_may_be_bytes_of_any_encoding(tmp_path: Path) -> None:
    latin = "f\udcc3.mp4"  # surrogates stand for bytes that are not UTF-8
    touch(tmp_path, latin, "b.mp4")
    assert [
        Path(path).name for path in opened(tmp_path, b"path,label\nf\xc3.mp4,run\nb.mp4,swim\n").records.paths()
    ] == [
        latin,
        "b.mp4",
    ]


def test_class_names_must_be_unicode(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    with pytest.raises(ConfigError, match=r"line 2: the class 'caf\\xe9' is not valid UTF-8; save the list as UTF-8"):
        opened(tmp_path, b"path,label\na.mp4,caf\xe9\n")


@pytest.mark.parametrize(
    "text",
    [
        'path,label\n"a, b.mp4",run\n',
        'path;label\na, b.mp4;run\n',
        'path label\n"a, b.mp4" run\n',
        "path label\na, b.mp4 run\n",
        "'a, b.mp4',run\n",
        '"a, b.mp4",run\n',
        '"a, b.mp4" run\n',
        '"a, b.mp4" , "run"\n',
        "a, b.mp4,run\n",
        "a, b.mp4 run\n",
        "a, b.mp4\trun\n",
        "run;a, b.mp4\n",
    ],
)  # fmt: skip
def test_paths_may_contain_spaces_and_separators(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "a, b.mp4")
    manifest = opened(tmp_path, text)
    assert summary(manifest, tmp_path) == [("a, b.mp4", 0, "video")]
    assert manifest.classes == ["run"]


@pytest.mark.parametrize("text", ["cat,cat/1.png\ndog,dog/2.png\n", "cat/1.png,cat\ndog/2.png,dog\n"])
def test_a_class_folder_is_not_taken_for_the_file(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "cat/1.png", "dog/2.png")
    assert summary(opened(tmp_path, text), tmp_path) == [("cat/1.png", 0, "image"), ("dog/2.png", 1, "image")]


def test_paths_without_a_suffix_and_with_spaces_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "my clip/1.png", "our clip/1.png")
    expected = [("my clip", None, "frames"), ("our clip", None, "frames")]
    assert summary(opened(tmp_path, "my clip\nour clip\n"), tmp_path) == expected


@pytest.mark.parametrize(
    "text", ["train\\a.mp4,run\n", "path,label\ntrain\\a.mp4,run\n", "path\tlabel\n.\\train\\a.mp4\trun\n"]
)
def test_backslashes_of_windows_separate_folders(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "train/a.mp4")
    assert summary(opened(tmp_path, text), tmp_path) == [("train/a.mp4", 0, "video")]


def test_a_backslash_in_the_name_of_a_file_stays(tmp_path: Path) -> None:
    touch(tmp_path, "a\\b.mp4")
    assert summary(opened(tmp_path, "path\na\\b.mp4\n"), tmp_path) == [("a\\b.mp4", None, "video")]


def test_blank_lines_and_comments_are_skipped_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    text = '# made by hand\npath,label\n\na.mp4,run\n  \n# b.mp4,"swim\n#b.mp4,run\nb.mp4,swim\n\n'
    manifest = opened(tmp_path, text)
    assert summary(manifest, tmp_path) == RUN_AND_SWIM
    assert manifest.ignored == {"comment line": 3}


def test_a_file_whose_name_starts_with_a_number_sign_is_no_comment(tmp_path: Path) -> None:
    touch(tmp_path, "#1 hit.mp4", "b.mp4")
    manifest = opened(tmp_path, "#1 hit.mp4,run\nb.mp4,swim\n")
    assert summary(manifest, tmp_path) == [("#1 hit.mp4", 0, "video"), ("b.mp4", 1, "video")]


def test_line_numbers_count_blank_lines_comments_and_quoted_line_ends(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    text = 'path,caption,label\n\n# note\na.mp4,"two\nlines",0\nb.mp4,,one\n'
    with pytest.raises(ConfigError, match="line 6: label 'one' must be a whole number"):
        opened(tmp_path, text)


def test_unbalanced_quotes_are_an_error_with_their_line(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    with pytest.raises(ConfigError, match="line 3: quotes are unbalanced"):
        opened(tmp_path, 'path,label\na.mp4,run\n"b.mp4,run\nc.mp4,run\n')


def test_a_line_with_more_cells_than_the_header_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b, c.mp4")
    with pytest.raises(
        ConfigError, match="line 3: 3 cells, but the header has 2; put cells that contain the separator"
    ):
        opened(tmp_path, "path,label\na.mp4,run\nb, c.mp4,swim\n")


def test_empty_cells_at_the_end_of_lines_do_not_matter(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    assert summary(opened(tmp_path, "path,label\na.mp4,run,,\nb.mp4,swim,\n"), tmp_path) == RUN_AND_SWIM
    assert summary(opened(tmp_path, "sep=;\npath;label\na.mp4;run\nb.mp4;swim"), tmp_path) == RUN_AND_SWIM  # Excel


def test_unknown_columns_are_named_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    manifest = opened(tmp_path, "fps,path,width,label\n30,a.mp4,340,run\n25,b.mp4,256,swim\n")
    assert summary(manifest, tmp_path) == RUN_AND_SWIM
    assert manifest.ignored == {"column 'fps'": 1, "column 'width'": 1}


def test_a_column_of_splits_that_is_not_followed_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    [note] = opened(tmp_path, "path,split\na.mp4,train\nb.mp4,test\n").notes
    assert "column 'split' names several splits, train (1), test (1), and all rows are used" in note
    assert "data.test_list" in note


def test_a_column_that_could_be_the_label_is_suggested(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    manifest = opened(tmp_path, "id,breed,size\na,pug,3\nb,boxer,4\nc,pug,4\n")
    assert manifest.ignored == {"column 'breed'": 1, "column 'size'": 1}
    assert "no column is known as the label; to use 'breed', name it label" in manifest.notes[0]


def test_a_column_of_files_under_an_unknown_name_is_recognized(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    manifest = opened(tmp_path, "rushes,label\na.mp4,run\nb.mp4,swim\n")
    assert summary(manifest, tmp_path) == RUN_AND_SWIM


def test_a_header_without_a_column_of_files_is_an_error_that_lists_the_columns(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"label": ["run"], "fps": [30]}), tmp_path / "list.parquet")
    with pytest.raises(ConfigError, match="no column names the files, only label, fps; name one of them path"):
        from_list(tmp_path / "list.parquet")


@pytest.mark.parametrize("line", ["clip 120 3", "clip,120,3", "a.mp4,3,0.0,5.0", "a.mp4 0 5 run"])
def test_more_than_two_columns_need_a_header(tmp_path: Path, line: str) -> None:
    touch(tmp_path, "clip/1.jpg", "a.mp4")
    with pytest.raises(ConfigError, match=r"line 1: \d columns without a header .* add a first line with the names"):
        opened(tmp_path, f"{line}\n{line}\n")


def test_two_columns_of_files_are_an_error_unless_they_mean_the_same(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.jpg", "sub/a.mp4")
    with pytest.raises(ConfigError, match="the columns 'video' and 'image' could each be the files; remove or rename"):
        opened(tmp_path, "video,image,label\na.mp4,a.jpg,run\n")
    only_one_exists = opened(tmp_path, "filename,path,label\nb.mp4,sub/a.mp4,run\n")
    assert summary(only_one_exists, tmp_path) == [("sub/a.mp4", 0, "video")]
    the_same = opened(tmp_path, f"path,file,label\na.mp4,{tmp_path}/a.mp4,run\n")
    assert summary(the_same, tmp_path) == [("a.mp4", 0, "video")]


def test_two_columns_of_labels_are_an_error_unless_one_numbers_the_other(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    for text in ("path,label,class\na.mp4,run,sport\nb.mp4,swim,sport\n", "path,label,target\na.mp4,0,1\nb.mp4,1,2\n"):
        with pytest.raises(ConfigError, match=r"the columns 'label' and '(class|target)' could each be the labels"):
            opened(tmp_path, text)
    for header in ("path,label,class", "path,class_id,class_name", "path,category,label"):
        manifest = opened(tmp_path, f"{header}\na.mp4,1,swim\nb.mp4,0,run\n")
        assert (manifest.classes, manifest.numbers, manifest.records.labels.tolist()) == (
            ["run", "swim"],
            [0, 1],
            [1, 0],
        )
    repeated = opened(tmp_path, "path,label,label_id,label_name\na.mp4,3,3,run\nb.mp4,7,7,swim\n")
    assert (repeated.classes, repeated.numbers) == (["run", "swim"], [3, 7])


@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrow"])
def test_parquet_and_arrow_tables_are_lists(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    table = pa.table({"fps": [30, 25], "video": ["a.mp4", "b.mp4"], "label": [7, 9], "start": [None, 1.5]})
    file = str(tmp_path / f"list.{suffix}")
    if suffix == "parquet":
        parquet.write_table(table, file)
    else:
        feather.write_feather(table, file)
    manifest = from_list(Path(file))
    assert summary(manifest, tmp_path) == RUN_AND_SWIM
    assert (manifest.classes, manifest.ignored) == (["7", "9"], {"column 'fps'": 1})
    assert [record.start_s for record in manifest.records] == [None, 1.5]


@pytest.mark.parametrize("content", [b"PK\x03\x04" + b"\0\1" * 20, b"\0\1\2\3" * 20])
def test_a_workbook_or_a_binary_file_is_named_as_such(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match="not a text file; save it as text, such as CSV"):
        opened(tmp_path, content)
    write(tmp_path / "list.parquet", "path,label\n")
    with pytest.raises(ConfigError, match="cannot be read as a parquet table"):
        from_list(tmp_path / "list.parquet")


def test_a_column_of_the_list_names_the_groups(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    write(tmp_path / "list.csv", "path,label,Source Video\na.mp4,run,x\nb.mp4,run,y\nc.mp4,run,x\n")
    manifest = from_list(tmp_path / "list.csv", group="source_video")
    assert manifest.records.groups is not None
    first, second, third = manifest.records.groups.tolist()
    assert first == third != second
    assert manifest.ignored == {}
    assert from_list(tmp_path / "list.csv", group=r"(\w+)\.mp4").records.groups is None  # not a column


def test_the_published_list_of_kinetics_keeps_its_meaning(tmp_path: Path) -> None:
    # Its clips are already cut: the times belong to the names of the files.
    touch(tmp_path, "train/run/abc_000003_000013.mp4", "train/run/def_000000_000010.mp4")
    listed = write(tmp_path / "k.csv", "label,youtube_id,time_start,time_end,split\nrun,abc,3,13,train\n")
    records = open_layout("kinetics400", tmp_path, list=listed).train.records
    assert [(Path(record.path).stem, record.start_s, record.end_s) for record in records] == [
        ("abc_000003_000013", None, None)
    ]
