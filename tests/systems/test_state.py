"""The state of a system: it round-trips, and whatever is wrong with a file is one ValueError."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from calogen import ILD, ILD_ECAL, Incident, Showers
from calogen.systems.state import State
from calogen.systems.system import System, load
from calogen.train import LearnedStage, Plan


@dataclass(frozen=True)
class Inner:
    bias: bool = True


@dataclass(frozen=True)
class ToyConfig:
    width: int = 8
    sizes: tuple[int, ...] = (1, 2)
    inner: Inner = field(default_factory=Inner)


class Net(nn.Module):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(1, config.width, bias=config.inner.bias), nn.Tanh(), nn.Linear(config.width, 1)
        )
        self.register_buffer("mean", torch.zeros(3, dtype=torch.float64))


class Counts(LearnedStage):
    name, plan = "counts", Plan(steps=20, batch_size=8, learning_rate=1e-2, validate_every=10)

    def __init__(self, model: Net) -> None:
        self.model = model

    def prepare(self, showers):
        self.model.mean[0] = float(showers.counts.mean()) + 1 / 3

    def batch(self, showers, indices, rng):
        energy = torch.from_numpy(showers.incident.energy[indices])
        return energy[:, None], torch.from_numpy(showers.counts[indices]).float()[:, None]

    def loss(self, batch):
        energy, counts = batch
        return (self.model.net(energy / 100) - counts / 10).square().mean(-1)


class Toy(System):
    name: ClassVar[str] = "toy"
    Config = ToyConfig

    def __init__(self, config, detector) -> None:
        super().__init__(config, detector)
        self.net = Net(config)

    def parts(self):
        return {"net": self.net}

    def stages(self):
        return [Counts(self.net)]

    def sample(self, incident, *, seed, batch_size=64, progress=False):
        return Showers.empty(self.detector)


def showers(n: int = 40) -> Showers:
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 9, n))])
    p = offsets[-1]
    incident = Incident(np.full(n, 50.0), np.tile([0.0, 0.0, 1.0], (n, 1)), np.full(n, 22))
    return Showers(rng.normal(size=p), rng.normal(size=p), np.zeros(p), np.ones(p), offsets, incident, ILD_ECAL)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Toy:
    toy = Toy.create(ToyConfig(), ILD_ECAL, seed=3)
    toy.fit(showers(), run_dir=tmp_path_factory.mktemp("run"), progress=False, source={"file": "x.h5"})
    return toy


@pytest.fixture
def saved(fitted, tmp_path):
    path = tmp_path / "toy.safetensors"
    fitted.save(path)
    return path


def read(path, **options):
    return load(path, {"toy": Toy}, weights_dir=path.parent, **options)


def test_round_trip(fitted, saved):
    again = read(saved)
    assert again.config == fitted.config
    assert again.detector == ILD_ECAL
    assert again.provenance == json.loads(json.dumps(fitted.provenance))
    for name, tensor in fitted.net.state_dict().items():
        assert torch.equal(tensor, again.net.state_dict()[name])
    assert not again.net.training


def test_provenance_says_how(fitted):
    told = fitted.provenance
    assert told["plans"]["counts"]["steps"] == 20
    assert told["stages"][0]["steps"] == 20
    assert told["data"]["training"] + told["data"]["validation"] == told["data"]["showers"] == 40
    assert told["data"]["source"] == {"file": "x.h5"}
    assert set(told["versions"]) == {"calogen", "torch", "numpy", "python"}


def test_initial_weights_follow_the_seed():
    a, b, c = (Toy.create(ToyConfig(), ILD_ECAL, seed=s).net.net[0].weight for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 1e-2)])
def test_small_storage(fitted, tmp_path, dtype, tolerance):
    path = tmp_path / "small.safetensors"
    fitted.save(path, dtype=dtype)
    net = read(path).net
    assert net.net[0].weight.dtype == torch.float32
    torch.testing.assert_close(net.net[0].weight, fitted.net.net[0].weight, atol=tolerance, rtol=tolerance)
    assert torch.equal(net.mean, fitted.net.mean)  # fitted transforms lose nothing


def test_bare_name_is_the_shipped_state(saved):
    assert isinstance(load("toy", {"toy": Toy}, weights_dir=saved.parent), Toy)
    with pytest.raises(ValueError, match="did you mean 'toy'"):
        load("toys", {"toy": Toy}, weights_dir=saved.parent)
    with pytest.raises(ValueError, match="no such file"):
        load("./nothing.safetensors", {"toy": Toy}, weights_dir=saved.parent)


def test_existing_file_is_kept(fitted, saved):
    with pytest.raises(ValueError, match="--overwrite"):
        fitted.save(saved)
    fitted.save(saved, overwrite=True)


def spoilt(state: State, **changes) -> State:
    return replace(state, **changes)


def net_with(state: State, **tensors) -> dict:
    return {k: v for k, v in {**state.tensors, **tensors}.items() if v is not None}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: spoilt(s, system="tay"), "unknown system 'tay'; did you mean 'toy'"),
        (lambda s: spoilt(s, config={"widht": 8}), "unknown key 'config.widht': did you mean 'width'"),
        (lambda s: spoilt(s, config={"width": 9}), "has shape"),
        (lambda s: spoilt(s, config={"width": -1}), "cannot build"),
        (lambda s: spoilt(s, detector={"name": "x"}), "cannot build"),
        (lambda s: spoilt(s, tensors=net_with(s, **{"net/mean": None})), "missing mean"),
        (lambda s: spoilt(s, tensors=net_with(s, **{"net/more": torch.ones(1)})), "unexpected more"),
        (lambda s: spoilt(s, tensors=net_with(s, **{"other/more": torch.ones(1)})), "has parts"),
        (lambda s: spoilt(s, tensors=net_with(s, **{"net/mean": torch.ones(4)})), "shape"),
        (lambda s: spoilt(s, tensors=net_with(s, **{"net/mean": torch.full((3,), torch.nan)})), "NaN"),
    ],
)
def test_what_does_not_fit_is_refused(saved, spoil, message):
    spoil(State.read(saved)).write(saved, overwrite=True)
    with pytest.raises(ValueError, match=message) as error:
        read(saved)
    assert "\n" not in str(error.value)
    assert str(saved) in str(error.value)


def test_another_detector_version_or_file_is_refused(saved, monkeypatch):
    with pytest.raises(ValueError, match="trained for detector"):
        read(saved, detector=ILD)
    monkeypatch.setattr("calogen.systems.state.FORMAT_VERSION", 2)
    with pytest.raises(ValueError, match="state format 1, this calogen reads 2"):
        read(saved)
    for content in (
        b"",
        b"\x89HDF\r\n\x1a\n" + bytes(100),
        b"\xff" * 8 + bytes(50),
        (5).to_bytes(8, "little") + b"[[[[[",
    ):
        saved.write_bytes(content)
        with pytest.raises(ValueError, match="not a safetensors file"):
            read(saved)
    saved.write_bytes((17 * 2**20).to_bytes(8, "little") + bytes(18 * 2**20))
    with pytest.raises(ValueError, match="above the limit"):
        read(saved)
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, str(saved))
    with pytest.raises(ValueError, match="not one written by calogen"):
        read(saved)


def test_weights_that_are_not_finite_are_not_saved(fitted, tmp_path):
    toy = Toy.create(ToyConfig(), ILD_ECAL)
    toy.net.net[0].weight.data[0] = 1e6
    with pytest.raises(ValueError, match="not finite in float16"):
        toy.save(tmp_path / "x", dtype="float16")
    assert not (tmp_path / "x").exists()


def test_showers_of_another_detector_are_refused(tmp_path):
    with pytest.raises(ValueError, match="showers of detector"):
        Toy.create(ToyConfig(), ILD).fit(showers(), run_dir=tmp_path, progress=False)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_one_error(fitted, tmp_path, data):
    path = tmp_path / "damaged.safetensors"
    fitted.save(path, overwrite=True)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), "cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        at = data.draw(st.one_of(st.integers(0, 16), st.integers(0, len(content) - 1)))
        old = bytes(content[at : at + 4])
        content[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4).filter(lambda b: b != old))
    path.write_bytes(bytes(content))
    try:
        again = read(path)
    except ValueError as error:
        message = str(error)
    else:  # only a change that the JSON does not see, as a space for a space, leaves the state whole
        assert torch.equal(again.net.mean, fitted.net.mean)
        message = ""
    assert "\n" not in message
