"""What cannot run says so in one line, before Geant4 is asked."""

import subprocess
import sys
from pathlib import Path

import pytest

from calogen.data.incident import Incident
from calogen.geant4.environment import EM_DATA, HADRONIC_DATA, Geant4Unavailable, prepare
from calogen.geant4.run import last_words, make_request, simulate
from calogen.geant4.setup import REFERENCE_LISTS
from calogen.geant4.shards import open_run, read_request


def test_unset_data_folder_names_the_variable_and_the_command() -> None:
    with pytest.raises(Geant4Unavailable, match=r"GEANT4_DATA_DIR is not set.*python -c") as refusal:
        prepare(environ={})
    assert "\n" not in str(refusal.value)


def test_missing_data_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(Geant4Unavailable, match="is not a folder"):
        prepare(environ={"GEANT4_DATA_DIR": str(tmp_path / "nowhere")})
    with pytest.raises(Geant4Unavailable, match="G4EMLOW"):
        prepare(environ={"GEANT4_DATA_DIR": str(tmp_path)})
    for name in EM_DATA:
        (tmp_path / name).mkdir()
    environ = {"GEANT4_DATA_DIR": str(tmp_path)}
    assert prepare(environ=environ) == tmp_path
    assert environ["G4LEVELGAMMADATA"].startswith(str(tmp_path))
    with pytest.raises(Geant4Unavailable, match=HADRONIC_DATA[0]):
        prepare(hadronic=True, environ=environ)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stack": "nowhere"}, "ild-ecal"),
        ({"stack": "ild-ecla"}, "did you mean 'ild-ecal'"),
        ({"stack": "box-30"}, r"cells only.*convert with --voxels box-30"),
        ({"stack": "calochallenge-1-pions"}, "cells only"),
        ({"physics": "FTFP_BIRD"}, "did you mean FTFP_BERT or "),
        ({"physics": "qgsp_bert"}, "did you mean QGSP_BERT"),
        ({"physics": "42"}, "known: em, FTFP_BERT"),
        ({"incident": Incident.gun(1, pdg=211, energy=5.0)}, "FTFP_BERT"),
        ({"cut_mm": 0.0}, "cut_mm"),
        ({"cut_mm": float("nan")}, "cut_mm"),
        ({"time_cut_ns": -1.0}, "time_cut_ns"),
        ({"birks_mm_per_mev": -1.0}, "birks_mm_per_mev"),
        ({"subcells": (5,)}, "sub-cells"),
        ({"seed": -1}, "seed"),
        ({"shard_size": 0}, "shard size"),
        ({"workers": 0}, "workers"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    arguments = {"stack": "ild-ecal", "incident": Incident.gun(2, energy=5.0), "seed": 1} | options
    with pytest.raises(ValueError, match=message) as refusal:
        simulate(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(refusal.value)


def test_a_shard_folder_of_another_run_is_refused_naming_the_difference(tmp_path: Path) -> None:
    open_run(tmp_path, make_request("ild-ecal", Incident.gun(1, energy=5.0), seed=1))
    open_run(tmp_path, make_request("ild-ecal", Incident.gun(1, energy=5.0), seed=1))
    with pytest.raises(ValueError, match=r"\(seed differ\)"):
        open_run(tmp_path, make_request("ild-ecal", Incident.gun(1, energy=5.0), seed=2))
    with pytest.raises(ValueError, match="incident"):
        open_run(tmp_path, make_request("ild-ecal", Incident.gun(1, energy=6.0), seed=1))


def test_times_change_the_description_only_where_asked_for(tmp_path: Path) -> None:
    plain, timed = (make_request("ild", Incident.gun(1), seed=1, keep_time=kept) for kept in (False, True))
    assert timed.describe() == plain.describe() | {"keep_time": True}
    for request in (plain, timed):
        folder = tmp_path / str(request.setup.keep_time)
        open_run(folder, request)
        assert read_request(folder).describe() == request.describe()


def test_known_physics_lists_are_those_of_geant4(geant4: Path) -> None:
    code = (
        "import geant4_pybind as g4; known = g4.G4PhysListFactory().AvailablePhysLists(); "
        "print('lists:', *sorted(set(known) & set(vars(g4))))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in output.splitlines() if line.startswith("lists: ")]
    assert line.split()[1:] == sorted(REFERENCE_LISTS)


def test_an_event_depends_on_its_number_not_on_its_shard() -> None:
    one = make_request("ild-ecal", Incident.gun(7, energy=5.0), seed=1, shard_size=3)
    assert [list(one.events(i)) for i in range(one.n_shards)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_last_words_are_the_cause_not_the_obituary() -> None:
    assert last_words("") == ""
    assert last_words("hello\n ***** \n") == "hello"
