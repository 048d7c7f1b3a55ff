"""The experiment on real files, on made ones of the same form."""

import csv
import json
import pathlib

import pytest

from experiments.real_data import run as real_data


def written(folder: pathlib.Path) -> pathlib.Path:
    """Files in the form of SST-2 and CommitmentBank."""
    sst2, cb = folder / "text_classification" / "sst2", folder / "superglue" / "CB"
    for place in (sst2, cb):
        place.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        (sst2 / f"{split}.txt").write_text("".join(f"{i % 2} the film number {i} was {'good' if i % 2 else 'bad'}\n" for i in range(24)))
    for split, first in (("train", 0), ("dev", 100)):
        rows = [{"sentence": f"it is number {first + i}", "label": real_data.CHOICES["cb"][i % 3]} for i in range(24)]
        (cb / f"{split}.json").write_text(json.dumps(rows))
    return folder


def test_every_data_set_and_condition_gets_a_row(tmp_path, capsys):
    flags = [f"--data={written(tmp_path / 'data')}", f"--workdir={tmp_path / 'runs'}", f"--output={tmp_path / 'results.csv'}"]
    real_data.main([*flags, "--model=t5_nano", "--steps=1", "--seeds=1"])
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [(row["data"], row["condition"]) for row in rows] == [(data, way) for data in real_data.CHOICES for way in real_data.CONDITIONS]
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    # A word tells the label of the first, and none that of the second, whose three labels come equally often.
    assert {(row["data"], row["bag_of_words"] == "1.0000", row["majority"]) for row in rows} == {
        ("sst2", True, "0.5000"),
        ("cb", False, "0.3333"),
    }
    assert "sst2, prompt" in capsys.readouterr().out


def test_a_folder_without_the_files_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        real_data.main([f"--data={tmp_path}", f"--workdir={tmp_path / 'runs'}", f"--output={tmp_path / 'results.csv'}"])
    assert stop.value.code == 2
    assert "error: --data: no " in capsys.readouterr().err
