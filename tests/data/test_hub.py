"""Datasets of the hub: which files are a split, at which commit, and no network, as the hub is a folder here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from sharpen.config.data import FileData
from sharpen.data import hub
from sharpen.data.hub import HubId
from sharpen.data.source import fingerprint, pinned, read_labelled
from sharpen.errors import DataError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HERE = Path("nowhere")


class FakeHub:
    """One dataset; `online` may be switched off."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "hub"
        self.cache = folder / "cache"
        self.online = True
        self.card: dict[str, Any] | None = None
        self.asked: list[str | None] = []

    def write(self, name: str, *prompts: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"prompt": prompt, "completion": "x"}) + "\n" for prompt in prompts))

    def dataset_info(self, repo: str, revision: str | None = None) -> Any:
        self.asked.append(revision)
        if not self.online or repo != "org/data":
            raise OSError("no such dataset, or no network")
        names = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        return SimpleNamespace(
            sha=COMMIT, siblings=[SimpleNamespace(rfilename=name) for name in names], card_data=self.card
        )

    def snapshot_download(
        self, repo: str, *, repo_type: str, revision: str, allow_patterns: Any = (), local_files_only: bool = False
    ) -> str:
        assert (repo, repo_type, revision) == ("org/data", "dataset", COMMIT)
        if local_files_only and not self.cache.exists():
            raise FileNotFoundError("not in the cache")
        if not local_files_only:
            for name in set(allow_patterns) - {"README.md"}:
                target = self.cache / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.folder / name, target)
        return str(self.cache)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    made = FakeHub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot_download)
    hub._info.cache_clear()
    return made


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("org/data", HubId("org/data", "", "", "")),
        ("org/data/test", HubId("org/data", "", "", "test")),
        ("org/data@v1.0:main/train", HubId("org/data", "v1.0", "main", "train")),
        ("org/da.ta:main", HubId("org/da.ta", "", "main", "")),
        ("folder/rows.jsonl", None),
        ("folder/rows.parquet", None),
        ("/tmp/rows", None),
        ("../data/rows", None),
        ("rows", None),
    ],
)
def test_a_path_is_a_dataset_where_it_is_no_file(path: str, expected: HubId | None) -> None:
    assert hub.parse(path, HERE) == expected
    if expected:
        assert str(expected) == path


def test_a_file_of_that_name_goes_before_the_hub(tmp_path: Path) -> None:
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "data").write_text("{}")
    assert hub.parse("org/data", tmp_path) is None


SHARDS = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"]


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("org/data", SHARDS, SHARDS[:2]),
        ("org/data/test", SHARDS, SHARDS[2:]),
        ("org/data", ["README.md", "load.py", "train.jsonl", "test.jsonl"], ["train.jsonl"]),
        ("org/data", ["README.md", "rows.jsonl"], ["rows.jsonl"]),
        (
            "org/data:main",
            ["main/train-0-of-1.parquet", "socratic/train-0-of-1.parquet"],
            ["main/train-0-of-1.parquet"],
        ),
        ("org/data", ["train.csv", "train.parquet"], ["train.parquet"]),
        (
            "org/data/train_sft",
            ["data/train_sft-0-of-1.parquet", "data/train_gen-0-of-1.parquet"],
            ["data/train_sft-0-of-1.parquet"],
        ),
        ("org/data", ["en-train.jsonl", "en-test.jsonl"], ["en-train.jsonl"]),
    ],
)
def test_a_split_is_found_by_the_names_of_files(name: str, files: list[str], expected: list[str]) -> None:
    found = hub.parse(name, HERE)
    assert found and hub.choose(found, files, []) == expected


CONFIGS: list[dict[str, Any]] = [
    {
        "config_name": "main",
        "data_files": [{"split": "train", "path": "main/tr*"}, {"split": "test", "path": ["x.csv"]}],
    },
    {"config_name": "extra", "data_files": "extra/*.jsonl"},
]
FILES = ["main/tr-1.jsonl", "main/tr-2.jsonl", "x.csv", "extra/a.jsonl"]


def test_the_card_says_which_files_are_a_split() -> None:
    assert hub.choose(HubId("o/d", "", "main", ""), FILES, CONFIGS) == FILES[:2]
    assert hub.choose(HubId("o/d", "", "main", "test"), FILES, CONFIGS) == ["x.csv"]
    assert hub.choose(HubId("o/d", "", "extra", ""), FILES, CONFIGS) == ["extra/a.jsonl"]
    marked = [CONFIGS[0], {**CONFIGS[1], "default": True}]
    assert hub.choose(HubId("o/d", "", "", ""), FILES, marked) == ["extra/a.jsonl"]


@pytest.mark.parametrize(
    ("name", "files", "configs", "fact"),
    [
        (HubId("o/d", "", "", ""), FILES, CONFIGS, "several configs"),
        (HubId("o/d", "", "other", ""), FILES, CONFIGS, "no such config"),
        (HubId("o/d", "", "main", "dev"), FILES, CONFIGS, "no data files of the split 'dev'"),
        (HubId("o/d", "", "", "dev"), ["train.jsonl"], [], "no data files of the split 'dev'"),
        (HubId("o/d", "", "", ""), ["a/train.jsonl", "b/train.jsonl"], [], "several configs"),
        (HubId("o/d", "", "", ""), ["train.bin", "d.py"], [], "no data files"),
    ],
)
def test_what_cannot_be_told_is_refused_with_what_there_is(
    name: HubId, files: list[str], configs: list[dict[str, Any]], fact: str
) -> None:
    with pytest.raises(DataError, match=fact) as caught:
        hub.choose(name, files, configs)
    assert caught.value.value and caught.value.remedy


def test_rows_come_from_all_files_of_the_split_at_a_pinned_commit(fake: FakeHub) -> None:
    fake.write("data/train-00001-of-00002.jsonl", "c")
    fake.write("data/train-00000-of-00002.jsonl", "a", "b")
    fake.write("data/test-00000-of-00001.jsonl", "d")
    resolved = pinned(FileData(path="org/data"), HERE)
    assert resolved.path == f"org/data@{COMMIT}"
    assert [row.messages[0]["content"] for row in read_labelled(resolved, HERE)] == ["a", "b", "c"]
    assert len(list(read_labelled(resolved.model_copy(update={"limit": 2}), HERE))) == 2
    test = resolved.model_copy(update={"path": f"{resolved.path}/test"})
    assert [row.messages[0]["content"] for row in read_labelled(test, HERE)] == ["d"]
    assert not (fake.cache / "README.md").exists()


def test_what_was_fetched_is_read_without_network_and_nothing_else(fake: FakeHub) -> None:
    fake.write("train.jsonl", "a")
    fake.write("test.jsonl", "b")
    source = pinned(FileData(path="org/data"), HERE)
    before = fingerprint(source, HERE)
    hub._info.cache_clear()
    fake.online = False
    assert fingerprint(source, HERE) == before
    with pytest.raises(DataError, match="no data files of the split 'test'"):
        list(read_labelled(FileData(path=f"{source.path}/test"), HERE))
    shutil.rmtree(fake.cache)
    with pytest.raises(DataError, match=r"the hub did not give the dataset.*Check the spelling"):
        list(read_labelled(source, HERE))


def test_an_unknown_dataset_is_told_so(fake: FakeHub) -> None:
    with pytest.raises(DataError, match="no such dataset, or no network"):
        pinned(FileData(path="org/other"), HERE)
