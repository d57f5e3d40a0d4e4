"""Wrong commands of new users: each answer names the mistake and the cure in a few lines, and leaves nothing behind."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run
from image_files import write_two_classes

MOST_LINES = 4  # of an answer, below its heading

WRONG = {
    # paths
    "pretrain data.root=imagse": ["data.root=", "imagse does not exist; did you mean images?"],
    "pretrain data.root=empty": ["empty contains no video or image", "such as .mp4, .avi, .jpg or .png"],
    "pretrain data.root=images/a/0.png": ["0.png is a file, not a folder"],
    "knn weights=runs/none data.root=images": ["weights=runs/none does not exist", "backbone.safetensors"],
    "knn weights=images data.root=images": ["weights=images has no backbone.safetensors or classifier.safetensors"],
    "knn weights=broken.pt data.root=images": ["weights=broken.pt cannot be read: "],
    "knn features=images": ["features=images", "give the run directory of `extract`"],
    "pretrain data.root=images run.dir=old": [
        "run.dir=old holds a config.yaml that is not of a run: choose another directory"
    ],
    "pretrain data.root=images run.resume=true run.dir=new": ["run.resume is no longer a setting: leave it out"],
    "report imagse": ["imagse does not exist"],
    "compare images": ["images contains no runs"],
    "compare images/a/0.png old": ["images/a/0.png"],
    "compare old": ["two or more finished runs", "none is named", "old is unfinished"],
    "compare old damaged": ["damaged/report.json is not the report of a run"],
    "report images": ["RUN=images holds no run (config.yaml or report.json): name the directory"],
    "report damaged": ["damaged/report.json cannot be read"],
    "report old out=nowhere/page.html": ["out=nowhere/page.html is in a folder that does not exist"],
    "watch imagse": ["RUN=imagse does not exist; did you mean images?"],
    "watch imagse/a": ["did you mean images/a?"],
    "watch images": ["RUN=images holds no run (config.yaml or report.json)"],
    "watch images/a/0.png": ["RUN=images/a/0.png is a file: name the directory of a run"],
    "study texts": ["texts contains no video or image, only 2 x .txt", "choose another folder"],
    "study data.root=images plain": ["the folder is given twice, as plain and as data.root=images"],
    "study imagse": ["data.root=imagse does not exist; did you mean images?"],
    "pretrain data.root=imagse/a": ["data.root=imagse/a does not exist; did you mean images/a?"],
    "knn weights=images/a/0.png data.root=images": ["weights=images/a/0.png cannot be read: "],
    "linear weights=old data.root=texts": ["weights=old has no backbone.safetensors or classifier.safetensors"],
    "test weights=images data.root=images": ["weights=images has no backbone.safetensors or classifier.safetensors"],
    "retrieve data.root=texts backbone=resnet18": ["texts contains no video or image"],
    "finetune data.root=empty backbone=resnet18": ["empty contains no video or image"],
    "data doctor texts": ["FOLDER=", "texts contains no video or image"],
    # several at once
    "knn weights=runs/none data.root=imagse k=0 --seed 3": [
        "write seed=3",
        "k=0 must be",
        "did you mean images",
        "none",
    ],
    "report runs/none data.root=nix foo=3": ["foo is not a setting of report", "RUN=runs/none", "data.root=nix"],
    "data doctor imagse": ["FOLDER=imagse does not exist; did you mean images?"],
    # names
    "pretrane data.root=images": ["pretrane is not a command; did you mean pretrain?"],
    "pretrain data.rot=images": ["data.rot is not a setting of pretrain; did you mean data.root?"],
    "pretrain data.root=images loss=sec": ["loss=sec must be one of", "did you mean sce?"],
    "pretrain data.root=images dropout=0.5": ["dropout is not a setting of pretrain, but of finetune"],
    "pretrain data.root=images weights=old": ["weights=old has no backbone.safetensors or classifier.safetensors"],
    "pretrain data.root=images epochs=3": ["epochs is not a setting of pretrain; did you mean trainer.max_epochs?"],
    "pretrain data.root=images recipe=ucf101_finetune": ["is a recipe of `eztorch-sce finetune`, not of pretrain"],
    "recipes xyz": ["no recipe has the word xyz; words that many have are k400, ", "`eztorch-sce recipes` lists all"],
    "pretrain data.root=images recipe=ucf11": ["recipe=ucf11 is neither", "recipes with ucf101 are ", "lists all"],
    "knn --help zz": ["--help zz: no such group or setting; groups are run, data, "],
    "plan device=A10": ["device=A10 must be one of", "did you mean A100-80G?"],
    "--versoin": ["--versoin is not an option; did you mean --version?"],
    "env foo": ["env takes no arguments, got foo"],
    "recipes ucf11": ["no recipe has the word ucf11; did you mean ucf101?"],
    "completion": ["the name of the shell is missing: write eztorch-sce completion bash|zsh|fish"],
    "completion bash zsh": ["one shell is expected, got bash zsh"],
    "data doctr images": ["data doctr is not a command; did you mean doctor?"],
    "import a b": ["import is not a command; did you mean checkpoint import?"],
    "checkpoint imprt a b": ["checkpoint imprt is not a command; did you mean import?"],
    "checkpoint inspect imagse": ["FILE=imagse does not exist; did you mean images?"],
    "checkpoint export images out": ["format is missing: choose one of eztorch_sce"],
    "checkpoint export images out format=onx": ["format=onx must be one of"],
    # values
    "pretrain data.root=images data.batch_size=many": ["data.batch_size=many must be a whole number, at least 1"],
    "pretrain data.root=images data.batch_size=64": ["data.batch_size=64 is more than the 10 records", "10 or less"],
    "pretrain data.root=images trainer.accelerator=gpu": ["torch finds no GPU: use trainer.accelerator=cpu"],
    "pretrain data.root=images recipe=ucf101_r2plus1d18": ["data.annotations", "set data.annotations to the folder"],
    "knn data.root=images": ["weights is not set: give the run directory of a pretraining"],
    "knn data.root=plain backbone=resnet18": ["plain", "label"],
    "knn features=old weights=old": ["features=old", "weights"],
    "study images minutes=-3": ["minutes=-3 must be greater than 0"],
    "linear weights=old data.root=images optimizer.lr=fast": ["optimizer.lr=fast must be a number"],
    "plan devices=some": ["devices=some must be a whole number"],
    "watch old port=99999": ["port=99999 must be between 0 and 65535"],
    "data doctor images workers=-1": ["workers=-1 must be at least 1"],
    "finetune": ["weights is not set", "data.root is not set; set a folder"],
    # forms
    "pretrain data.root=images seed=1,2": ["seed=1,2 has several values: add -m to run each one"],
    "pretrain data.root=images recipe=demo,cifar10_resnet18": ["has several values: add -m to run each one"],
    "data doctor images workers=1 workers=2": ["workers is set several times (workers=1, workers=2)"],
    "compare old old --jsn": ["--jsn is not an option of compare, which has only --json"],
    "pretrain -m data.root=images --cfg job": ["-m and --cfg exclude each other; leave out -m"],
    "pretrain data.root=images --cfg jbo": ["--cfg takes one of job, hydra, all, not jbo, as in --cfg job"],
    "data.root=images": ["the command is missing in front of it, as in eztorch-sce pretrain data.root=images"],
    "pretrain --data.root=images": ["settings are written name=value, without dashes: write data.root=images"],
    "pretrain --lr 0.1 data.root=images": ["--lr 0.1: ", "write optimizer.lr=0.1"],
    "pretrain data.root = images": ["without spaces around =: write data.root=images"],
    "pretrain images": ["images is a path without the name of its setting: write data.root=images"],
    "pretrain images/a/0.png images/a/2.png images/a/4.png": ["3 words are paths", "write data.root=images/a"],
    "pretrain cifar10_resnet18 data.root=images": ["write recipe=cifar10_resnet18"],
    "pretrain --dry-run data.root=imagse": ["imagse does not exist; did you mean images?"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write images with classes and without, and a finished run, in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_two_classes(tmp_path / "images")
    (tmp_path / "plain").mkdir()
    for file in (tmp_path / "images").rglob("*.png"):
        shutil.copy(file, tmp_path / "plain")
    for name in ("empty", "old", "texts", "damaged"):
        (tmp_path / name).mkdir()
    for name in ("notes.txt", "more.txt"):
        (tmp_path / "texts" / name).write_text("no image")
    (tmp_path / "damaged" / "report.json").write_text("{")
    (tmp_path / "old" / "config.yaml").touch()
    (tmp_path / "broken.pt").write_bytes(b"not weights")
    return tmp_path


def answer_of(err: str) -> list[str]:
    """Return the lines of an answer, without those that a command prints before."""
    lines = err.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("eztorch-sce "))
    return lines[first + 1 :]


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_command_is_answered_with_the_cure(
    words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.rglob("*"))
    code, _, err = run(capsys, *words.split())
    answer = "\n".join(answer_of(err))
    assert code == 2
    assert all(expected in answer for expected in WRONG[words]), answer
    assert 1 <= len(answer.splitlines()) <= MOST_LINES
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before


def test_a_wrong_command_ends_a_real_process_with_2(folder: Path) -> None:
    words = [sys.executable, "-m", "eztorch_sce", "pretrain", "data.root", "=", "images", "loss=sec"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert [line[:2] for line in answer_of(done.stderr)] == ["- ", "- "]
    assert done.stdout == ""
