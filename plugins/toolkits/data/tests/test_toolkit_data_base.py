"""The base class: where splits come from, what is refused, and what the notes tell."""

from __future__ import annotations

import hashlib
import itertools
import tracemalloc
from pathlib import Path

import pytest
from sums_dataset import Sums, ids, rows, write

from moco_core import ConfigError, DatasetError, Example
from moco_core.options import build
from moco_toolkit_data import Drop, Row, SourceOptions


class Halves(Sums):
    dev_from = test_from = ("test",)
    subsets = ()


def test_a_folder_is_read_by_the_names_of_its_files(tmp_path: Path) -> None:
    write(tmp_path / "all" / "validation-00000-of-00001.jsonl", rows(2))
    write(tmp_path / "all" / "test-00000-of-00001.jsonl", rows(4, 10))
    write(tmp_path / "all" / "train-00000-of-00001.jsonl", rows(9, 100))
    write(tmp_path / "other" / "test.jsonl", rows(3, 50))  # another configuration of the repository
    data = Sums(SourceOptions(path=str(tmp_path)))
    assert sorted(ids(data, "dev")) == ["s0", "s1"]
    assert sorted(ids(data, "test")) == ["s10", "s11", "s12", "s13"]
    assert data.notes()["split"]["dev"] == "official: validation, at most 2 by seed 0"


def test_a_copy_of_a_repository_is_read_by_its_card(tmp_path: Path) -> None:
    write(tmp_path / "tables" / "small.jsonl", rows(2))
    write(tmp_path / "tables" / "large.jsonl", rows(4, 10))
    write(tmp_path / "tables" / "another.jsonl", rows(3, 50))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: all\n  data_files:\n  - {split: val, path: tables/small.jsonl}\n"
        "  - {split: test, path: tables/large.jsonl}\n- config_name: more\n  data_files: tables/another.jsonl\n---\n"
    )
    data = Sums(SourceOptions(path=str(tmp_path)))
    assert (sorted(ids(data, "dev")), sorted(ids(data, "test"))) == (["s0", "s1"], ["s10", "s11", "s12", "s13"])


def test_a_file_called_like_the_configuration_is_the_one_that_is_read(tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", rows(6))
    write(tmp_path / "more.jsonl", rows(3, 50))
    data = Halves(SourceOptions(path=str(tmp_path)))
    assert sorted(ids(data, "dev") + ids(data, "test")) == [f"s{i}" for i in range(6)]


def test_a_column_split_is_read_as_the_split(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [*rows(2, split="val"), *rows(3, 10, split="test"), *rows(1, 20, split="train")])
    data = Sums(SourceOptions(path=path, dev_size=0, test_size=0))
    assert (ids(data, "dev"), ids(data, "test")) == (["s0", "s1"], ["s10", "s11", "s12"])


def test_a_file_without_splits_is_cut_by_seed_disjointly(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", rows(60))
    cuts = []
    for seed in (0, 0, 1):
        data = Sums(SourceOptions(path=path, seed=seed, dev_size=20, test_size=30))
        dev, test = ids(data, "dev"), ids(data, "test")
        assert (len(dev), len(test)) == (20, 30) and not set(dev) & set(test)
        cuts.append((dev, test))
    assert cuts[0] == cuts[1] != cuts[2]


def test_the_cut_does_not_depend_on_the_order_of_the_source(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", rows(60))
    back = write(tmp_path / "y.jsonl", rows(60)[::-1])
    for split in ("dev", "test"):
        options = {"dev_size": 10, "test_size": 20}
        assert ids(Halves(SourceOptions(path=path, **options)), split) == ids(
            Halves(SourceOptions(path=back, **options)), split
        )


class Groups(Sums):
    subsets = ()

    def record(self, row: Row) -> Example | Drop:
        return self.text(row.key("id"), row.text("q"), [row.text("a")], "integer", group=row.text("group"))


def test_what_scores_together_is_sampled_together(tmp_path: Path) -> None:
    data = [{**row, "group": f"g{i % 5}", "split": "test"} for i, row in enumerate(rows(20))]
    path = write(tmp_path / "x.jsonl", data)
    for size in (1, 4, 5, 8):
        found = [e.group for e in Groups(SourceOptions(path=path, test_size=size)).examples("test")]
        assert [found.count(g) for g in found] == [4] * len(found) and len(found) == -(-size // 4) * 4


def test_equal_questions_stay_on_one_side_of_a_cut(tmp_path: Path) -> None:
    twins = [{"id": f"{side}{i}", "q": f"{i} + 1", "a": str(i + 1)} for i in range(40) for side in "ab"]
    data = Halves(SourceOptions(path=write(tmp_path / "x.jsonl", twins), dev_size=40, test_size=40))
    dev = {i[1:] for i in ids(data, "dev")}
    assert not dev & {i[1:] for i in ids(data, "test")}
    assert data.notes()["duplicates"]["across"]["count"] == 0 and data.notes()["duplicates"]["dev"]["count"] == 20


def test_smaller_samples_are_the_beginning_of_larger_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "test.jsonl", rows(50, split="test"))
    small, large = (ids(Sums(SourceOptions(path=path, test_size=n)), "test") for n in (5, 20))
    assert large[:5] == small


def test_one_open_size_leaves_the_other_side_what_it_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", rows(30))
    data = Halves(SourceOptions(path=path, dev_size=0, test_size=4))
    assert (len(ids(data, "dev")), len(ids(data, "test"))) == (26, 4)
    data = Halves(SourceOptions(path=path, dev_size=0, test_size=0))
    assert (len(ids(data, "dev")), len(ids(data, "test"))) == (15, 15)


def test_the_published_form_is_read_as_it_stands(tmp_path: Path) -> None:
    lines = [{"split": s, **r} for s, r in zip(["dev", "dev", "dev", "test", "test"], rows(5), strict=True)]
    write(tmp_path / "sums.jsonl", lines)
    write(tmp_path / "another.jsonl", [{"split": "dev", "id": "z"}])
    data = Sums(SourceOptions(path=str(tmp_path), split_source="peer"))
    assert (ids(data, "dev"), ids(data, "test")) == (["s0", "s1", "s2"], ["s3", "s4"])


def test_the_items_of_the_study_are_found_in_the_full_source(tmp_path: Path) -> None:
    study = [{"split": "dev", "id": 7, "q": "3 + 1", "a": "4"}, {"split": "test", "id": 8, "q": "5  +  1", "a": "6"}]
    options = {"split_source": "study", "peer_items": write(tmp_path / "study.jsonl", study)}
    data = Sums(SourceOptions(path=write(tmp_path / "x.jsonl", rows(9)), **options))
    assert (ids(data, "dev"), ids(data, "test")) == (["s3"], ["s5"])
    lost = [*study, {"split": "dev", "id": 9, "q": "99 + 1", "a": "100"}]
    options["peer_items"] = write(tmp_path / "study.jsonl", lost)
    data = Sums(SourceOptions(path=write(tmp_path / "x.jsonl", rows(9)), **options))
    assert ids(data, "dev") == ["s3"]
    assert data.notes()["split"]["dev"] == "the reference study's items; 1 of them are not in the source"


def test_subsets(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", rows(30))
    for wanted in ("odd", ("odd",)):
        data = Sums(build(SourceOptions, {"path": path, "subset": wanted, "dev_size": 5, "test_size": 5}))
        assert {e.question.subset for e in data.examples("test")} == {"odd"}
    with pytest.raises(ConfigError, match=r"subset: unknown 'ood', did you mean 'odd'\?"):
        Sums(SourceOptions(path=path, subset="ood"))
    with pytest.raises(DatasetError, match=r"split test has no row of subset none; it has even, odd"):
        ids(Halves(SourceOptions(path=path, subset=("odd", "none"))), "test")


def test_a_subset_can_be_stated_by_the_name_of_the_file(tmp_path: Path) -> None:
    for kind in ("even", "odd"):
        write(
            tmp_path / f"{kind}.jsonl",
            [{k: v for k, v in r.items() if k != "kind"} for r in rows(9) if r["kind"] == kind],
        )
    data = Sums(SourceOptions(path=str(tmp_path), dev_size=2, test_size=7))
    assert {e.id: e.question.subset for e in data.examples("test")}.items() <= {
        r["id"]: r["kind"] for r in rows(9)
    }.items()


def test_notes_count_dropped_rows_and_fingerprint_the_content(tmp_path: Path) -> None:
    data = rows(6, split="test")
    data[2]["a"] = ""
    path = write(tmp_path / "x.jsonl", data)
    first, second = Sums(SourceOptions(path=path)), Sums(SourceOptions(path=path))
    ids(first, "test")
    assert first.notes()["dropped"] == {"test": {"no answer": 1}} and first.notes()["examples"] == {"test": 4}
    ids(second, "test")
    assert first.notes() == second.notes() and len(first.notes()["fingerprint"]["test"]) == 64
    data[4]["a"] = "7"
    changed = Sums(SourceOptions(path=write(tmp_path / "x.jsonl", data)))
    ids(changed, "test")
    assert changed.notes()["fingerprint"] != first.notes()["fingerprint"]


def test_notes_are_about_the_examples_that_were_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", rows(9, split="test"))
    whole, begun = Sums(SourceOptions(path=path, test_size=3)), Sums(SourceOptions(path=path, test_size=8))
    ids(whole, "test")
    assert [e.id for e in itertools.islice(begun.examples("test"), 3)] == ids(whole, "test")
    assert begun.notes()["examples"] == {"test": 3} and begun.notes()["fingerprint"] == whole.notes()["fingerprint"]


def test_examples_without_an_upstream_id_get_one_made_of_their_content(tmp_path: Path) -> None:
    data = [{"q": q, "a": "1", "split": "test"} for q in ("x", "y", "x")]
    found = ids(Sums(SourceOptions(path=write(tmp_path / "x.jsonl", data), test_size=0)), "test")
    assert found[2] == f"{found[0]}~2" and len(set(found)) == 3
    assert ids(Sums(SourceOptions(path=write(tmp_path / "y.jsonl", data[::-1]), test_size=0)), "test")[1] == found[1]


def test_contradictions_and_repeats_can_be_left_out(tmp_path: Path) -> None:
    class Strict(Halves):
        drop_contradictions = True
        repeated_ids = "drop"

    data = [*rows(8), {"id": "t", "q": "3 + 1", "a": "5"}, rows(1)[0]]
    strict = Strict(SourceOptions(path=write(tmp_path / "x.jsonl", data), dev_size=4, test_size=4))
    found = ids(strict, "dev") + ids(strict, "test")
    assert "s3" not in found and "t" not in found and sorted(found) == sorted({f"s{i}" for i in range(8)} - {"s3"})


@pytest.mark.parametrize("cls", [Sums, Halves])
def test_memory_follows_the_sample_not_the_source(tmp_path: Path, cls: type[Sums]) -> None:
    def peak(count: int) -> int:
        filler = "x" * 300
        path = write(tmp_path / f"{count}.jsonl", rows(count, split="test", filler=filler))
        tracemalloc.start()
        try:
            assert len(ids(cls(SourceOptions(path=path, dev_size=20, test_size=20)), "test")) == 20
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(50)
    assert peak(3000) < peak(300) + 150_000  # the larger source has 1 MB more


# Bad input


def test_duplicate_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [*rows(3, split="test"), *rows(1, split="test")])
    with pytest.raises(DatasetError, match=r"x\.jsonl, row 4, field 'id': duplicate id 's0', first in row 1"):
        ids(Sums(SourceOptions(path=path, test_size=0)), "test")


def test_an_empty_split(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", rows(3, split="test"))
    with pytest.raises(
        DatasetError, match=r"x\.jsonl: split dev of sums is empty; it is read from the source's split validation$"
    ):
        ids(Sums(SourceOptions(path=path)), "dev")
    path = write(tmp_path / "y.jsonl", [{"id": "1", "q": "?", "a": "", "split": "test"}])
    with pytest.raises(DatasetError, match=r"split test of sums is empty: all 1 rows were dropped"):
        ids(Sums(SourceOptions(path=path)), "test")
    (tmp_path / "z.jsonl").write_text("")
    with pytest.raises(DatasetError, match=r"z\.jsonl: split test of sums is empty"):
        ids(Sums(SourceOptions(path=str(tmp_path / "z.jsonl"))), "test")


def test_paths_and_checksums(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", rows(9))
    good = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert ids(Sums(SourceOptions(path=path, sha256=good)), "test")
    with pytest.raises(DatasetError, match="wrong checksum"):
        ids(Sums(SourceOptions(path=path, sha256="0" * 64)), "test")
    with pytest.raises(DatasetError, match="path is a folder"):
        ids(Sums(SourceOptions(path=str(tmp_path), sha256=good)), "test")
    with pytest.raises(ConfigError, match="sha256: expected 64 hexadecimal digits"):
        build(SourceOptions, {"path": path, "sha256": "abc"})
    with pytest.raises(ConfigError, match="path is not set"):
        Sums(SourceOptions(sha256=good))
    with pytest.raises(ConfigError, match="revision: it pins a Hub source, but path is read instead"):
        Sums(SourceOptions(path=path, revision="abc"))
    with pytest.raises(DatasetError, match="no such file or folder"):
        ids(Sums(SourceOptions(path=str(tmp_path / "none"))), "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no data file in this folder"):
        ids(Sums(SourceOptions(path=str(tmp_path / "empty"))), "test")


def test_peer_needs_the_published_items(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split_source: study needs"):
        Sums(SourceOptions(split_source="peer"))
    path = write(tmp_path / "x.jsonl", rows(9))
    with pytest.raises(DatasetError, match="not in the reference study's published form"):
        ids(Sums(SourceOptions(path=path, split_source="peer")), "test")
    with pytest.raises(DatasetError, match=r"x\.jsonl, row 1: not in the reference study's published form"):
        ids(Sums(SourceOptions(path=path, split_source="peer", peer_items=path)), "test")
