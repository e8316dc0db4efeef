"""Two processes learn what one learns from the whole batch."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import torch

PROGRAM = '''
import sys

import torch
from lightning_fabric import Fabric
from torch import nn

from mien.engine.loss import Objective
from mien.losses import create_loss
from mien.models import Model


class Linear(Model):
    """A network without batch norm, whose statistics differ between processes."""

    in_channels, minimum_size = 1, 3

    def __init__(self):
        super().__init__()
        self.features, self.head = nn.Conv2d(1, 5, 3), nn.Linear(5, 4)

    def forward_features(self, x):
        return self.features(x)

    def forward_head(self, features):
        return self.head(features.mean((2, 3)))

    @property
    def cam_layer(self):
        return self.features


def learn(devices, out):
    fabric = Fabric(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto")
    fabric.launch()
    torch.manual_seed(0)
    loss = create_loss("joint", num_classes=4, num_features=5, island_weight=0.5)
    unwrapped = Objective(Linear(), loss)
    groups = [{"params": unwrapped.model.parameters()}, {"params": loss.parameters(), "lr": 0.5}]
    objective, optimizer = fabric.setup(unwrapped, torch.optim.SGD(groups, lr=0.1))
    x = torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    target = torch.arange(12) % 4
    share = slice(fabric.global_rank * 12 // devices, (fabric.global_rank + 1) * 12 // devices)
    for _ in range(3):
        value, _ = objective(x[share], target[share])
        optimizer.zero_grad()
        fabric.backward(value)
        optimizer.step()
    torch.save(unwrapped.state_dict(), f"{out}/{devices}-{fabric.global_rank}.pt")


if __name__ == "__main__":
    learn(2, sys.argv[1])
'''


def test_class_centers_are_the_same_in_every_process_and_as_in_one(tmp_path: Path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    spec = importlib.util.spec_from_file_location("program", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    program.learn(1, tmp_path)
    done = subprocess.run([sys.executable, path, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    alone, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    assert alone["loss.centers"].shape == (4, 5)
    for name, value in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-6)
