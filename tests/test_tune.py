"""What is trained: frozen parts do not move, rates fall with depth, only what changed is stored."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from geoml_cli import registry
from geoml_cli.core import tune
from geoml_cli.errors import GeomlError, UsageMistake

DEPTH = 3


class Encoder(nn.Module):
    """A bare parameter, three blocks with batch norm, dropout and a linear layer."""

    def __init__(self, blocks=True):
        super().__init__()
        self.channels, self.strides = [4], [1]
        self.place = nn.Parameter(torch.randn(1, 4, 1, 1))
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), Mix())
            for _ in range(DEPTH)
        )
        self.pool = nn.MaxPool2d(2)
        if blocks:
            self.blocks = lambda: list(self.layers)

    def forward(self, x):
        x = self.fixed * (x + self.place)
        for layer in self.layers:
            x = layer(x)
        return [x]


class Mix(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x.movedim(1, -1)).movedim(-1, 1)


class Sensor(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.encoder = Encoder(blocks)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        return self.encoder(x - self.mean[:, None, None])


class Network(nn.Module):
    def __init__(self, sensors=1, blocks=True):
        super().__init__()
        self.sensors = nn.ModuleList(Sensor(blocks) for _ in range(sensors))
        self.head = nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))

    def forward(self, x):
        return self.head(sum(sensor(x)[-1] for sensor in self.sensors))


def network(sensors=1, blocks=True):
    torch.manual_seed(0)
    return Network(sensors, blocks)


def copied(one):
    return {k: v.clone() for k, v in one.state_dict().items()}


def trained(one, steps=3):
    """Train on noise as the loop does, with AdamW and weight decay."""
    optimizer = torch.optim.AdamW(tune.groups(one, 0.1, 0.1, 1.0))
    for i in range(steps):
        tune.train_mode(one)
        x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(i))
        one(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return one


def moved(one, before):
    """Names of the tensors that training moved."""
    return {k for k, v in one.state_dict().items() if not torch.equal(v, before[k])}


def inside(i=None):
    return "sensors.0.encoder." + ("" if i is None else f"layers.{i}.")


@pytest.mark.parametrize("blocks", [True, False], ids=["blocks", "children"])
@pytest.mark.parametrize(
    ("words", "first"), [("all", 0), ("head", 3), ("last:1", 2), ("last:2", 1), ("last:3", 0), ("last:9", 0)]
)  # fmt: skip
def test_training_moves_what_is_chosen_and_nothing_else(words, first, blocks):
    one = network(blocks=blocks)
    before = copied(one)
    tune.choose(one, words)
    found = moved(trained(one), before)
    want = {k for k in before if k.startswith("head.") or first == 0 and k == inside() + "place"}
    for i in range(first, DEPTH):
        want |= {k for k in before if k.startswith(inside(i))}
    assert found == want  # batch norm's statistics are among them


def test_every_sensor_s_encoder_is_frozen():
    one = network(sensors=2)
    tune.choose(one, "last:1")
    left = {n for n, p in one.named_parameters() if p.requires_grad and n.startswith("sensors")}
    assert {n.split(".layers.")[0] for n in left} == {f"sensors.{i}.encoder" for i in (0, 1)}
    assert {n.split(".")[4] for n in left} == {"2"}


def test_frozen_parts_are_in_eval_mode_and_others_in_training():
    one = network()
    tune.choose(one, "last:1")
    tune.train_mode(one)
    encoder = one.sensors[0].encoder
    assert [layer.training for layer in encoder.layers] == [False, False, True]
    assert not any(m.training for layer in encoder.layers[:2] for m in layer.modules())
    assert all(m.training for m in [*encoder.layers[2].modules(), *one.head.modules(), one])
    x = torch.randn(4, 4, 8, 8)
    first = encoder.layers[0]
    assert torch.equal(first(x), first(x))  # no dropout
    one.eval()
    tune.choose(one, "head")
    tune.train_mode(one)
    assert not encoder.training and one.head.training


def test_what_its_maker_froze_stays_frozen():
    for words in ("all", "head", "last:9"):
        one = network()
        tune.choose(one, words)
        assert not one.sensors[0].encoder.fixed.requires_grad


@pytest.mark.parametrize("words", ["some", "last", "last:", "last:0", "last:-1", "last:x", "heads", "last:²"])  # fmt: skip
def test_other_words_are_a_mistake(words):
    with pytest.raises(UsageMistake, match=f"--tune {words}: is all, head, or last:N"):
        tune.choose(network(), words)


@pytest.mark.parametrize("blocks", [True, False], ids=["blocks", "children"])
def test_rates_fall_with_depth_and_vectors_do_not_decay(blocks):
    one = network(sensors=2, blocks=blocks)
    found = {}
    for group in tune.groups(one, 0.1, 0.05, 0.5):
        for p in group["params"]:
            assert id(p) not in found
            found[id(p)] = group["lr"], group["weight_decay"]
    names = {n: p for n, p in one.named_parameters() if p.requires_grad}
    assert found.keys() == {id(p) for p in names.values()}
    for name, p in names.items():
        rate, decay = found[id(p)]
        level = int(name.split(".layers.")[1][0]) if ".layers." in name else 0
        share = 1 if name.startswith("head") else 0.5 ** (DEPTH - level)
        assert rate == pytest.approx(0.1 * share), name
        assert decay == (0.05 if p.ndim > 1 else 0), name


def test_groups_hold_only_what_is_trained_and_are_few():
    one = network()
    assert len(tune.groups(one, 0.1, 0.05)) == 2
    tune.choose(one, "head")
    held = {id(p) for g in tune.groups(one, 0.1, 0.05) for p in g["params"]}
    assert held == {id(p) for p in one.head.parameters()}


@pytest.mark.parametrize("words", ["all", "head", "last:1"])
def test_what_changed_and_the_base_are_the_whole(words):
    one = network()
    base = {k: v for k, v in copied(one).items() if k.startswith(inside())}
    one.sensors[0].mean += 1
    tune.choose(one, words)
    trained(one)
    kept = tune.changed(one, base)
    whole = tune.restore(base, kept)
    assert whole.keys() == one.state_dict().keys()
    assert all(torch.equal(v, whole[k]) for k, v in one.state_dict().items())
    other = network()
    tune.choose(other, words)  # a frozen linear layer may sum up in another order
    other.load_state_dict(whole)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(other.eval()(x), one.eval()(x))
    rest = {k for k in one.state_dict() if k not in kept}
    frozen = {"all": 0, "head": 3, "last:1": 2}[words]
    want = {k for k in base for i in range(frozen) if k.startswith(inside(i))}
    want |= {inside() + "fixed"} | ({inside() + "place"} if frozen else set())
    assert rest == want


def test_a_buffer_that_moved_is_kept_and_one_of_nan_that_did_not_is_not():
    one = network()
    one.sensors[0].mean[0] = torch.nan
    base = copied(one)
    tune.choose(one, "head")
    assert "sensors.0.mean" not in tune.changed(one, base)
    one.sensors[0].mean[1] += 1
    assert "sensors.0.mean" in tune.changed(one, base)


LORA = "lora:rank=2"


def adapted(spec=LORA):
    pytest.importorskip("peft", reason="the extra `adapters` is not installed")
    one = network()
    before = copied(one.sensors[0].encoder)
    one.sensors[0].encoder = registry.make("adapters", spec, one.sensors[0].encoder)
    return one, before


def layers_of(one):
    return {n.split(".lora_")[0] for n, p in one.named_parameters() if ".lora_" in n}


@pytest.mark.parametrize("targets", ["linear", "conv", "all", "layers.1.3"])
def test_lora_starts_as_what_it_stands_on_and_is_all_that_moves(targets):
    one, before = adapted(f"{LORA},targets={targets}")
    own = one.sensors[0].encoder
    names = (
        {f"layers.{i}.3.linear" for i in range(DEPTH)} if targets in ("linear", "all") else set()
    )
    names |= {f"layers.{i}.0" for i in range(DEPTH)} if targets in ("conv", "all") else set()
    names |= {"layers.1.3.linear"} if targets.startswith("layers") else set()
    assert layers_of(own) == names
    plain, x = network(), torch.randn(2, 4, 8, 8)
    assert torch.allclose(plain.eval()(x), one.eval()(x), atol=1e-6)
    start = copied(own)
    trained(one, 4)
    found = moved(own, start)
    assert found == {k for k in start if ".lora_" in k}  # batch norm's statistics stay
    renamed = {k.replace(".base_layer", ""): v for k, v in own.state_dict().items()}
    assert all(torch.equal(renamed[k], v) for k, v in before.items())
    assert not torch.allclose(plain(x), one.eval()(x), atol=1e-4)


def test_lora_adds_alpha_over_rank_times_b_a():
    one, before = adapted("lora:rank=2,alpha=6")
    layer = one.sensors[0].encoder.layers[0][3].linear
    a, b = torch.randn(2, 4), torch.randn(4, 2)
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(a)
        layer.lora_B["default"].weight.copy_(b)
    x = torch.randn(5, 4)
    weight = before["layers.0.3.linear.weight"] + 6 / 2 * b @ a
    want = x @ weight.T + before["layers.0.3.linear.bias"]
    assert torch.allclose(layer(x), want, atol=1e-5)


def test_lora_s_additions_are_what_is_stored():
    one, _ = adapted()
    base = {k: v for k, v in copied(one).items() if k.startswith(inside())}
    trained(one)
    kept = tune.changed(one, base)
    assert all(".lora_" in k for k in kept if k.startswith(inside()))
    other, _ = adapted()
    other.load_state_dict(tune.restore(base, kept))
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(other.eval()(x), one.eval()(x))


def test_lora_is_still_the_encoder_that_it_was():
    one, _ = adapted()
    encoder = one.sensors[0].encoder
    assert type(encoder) is Encoder and encoder.channels == [4]
    rates = {g["lr"] for g in tune.groups(one, 0.1, 0.0, 0.5)}
    assert sorted(rates) == pytest.approx([0.0125, 0.025, 0.05, 0.1])


@pytest.mark.parametrize("norm_first", [True, False])
def test_lora_counts_in_torch_s_fused_transformer_too(norm_first):
    """In eval mode the fused form of the layer reads the plain weights: it must not be taken."""
    pytest.importorskip("peft", reason="the extra `adapters` is not installed")
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        plain = encoder(x)
    registry.make("adapters", LORA, encoder)
    assert layers_of(encoder) == {f"layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)}
    with torch.no_grad():
        assert torch.allclose(encoder(x), plain, atol=1e-5)
        for name, p in encoder.named_parameters():
            if ".lora_B" in name:
                p.fill_(0.3)
        assert not torch.allclose(encoder(x), plain, atol=1e-2)


def test_grouped_convolutions_and_what_fits_nothing():
    pytest.importorskip("peft", reason="the extra `adapters` is not installed")
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1))
    registry.make("adapters", "lora:targets=conv", grouped)
    assert layers_of(grouped) == {"1"}
    with pytest.raises(GeomlError, match="targets=linear fits no layer .* Conv2d .* targets=all"):
        registry.make("adapters", "lora", nn.Sequential(nn.Conv2d(4, 4, 1)))
    with pytest.raises(UsageMistake, match="rank is 1 or more"):
        registry.make("adapters", "lora:rank=0", nn.Linear(4, 4))


def test_without_peft_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "from torch import nn; from geoml_cli import registry\n"
        "from geoml_cli.errors import GeomlError\n"
        "try: registry.make('adapters', 'lora', nn.Sequential(nn.Linear(2, 2)))\n"
        "except GeomlError as error: print(error)\n"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout == "adapter lora: needs peft; pip install 'geoml-cli[adapters]'\n"
