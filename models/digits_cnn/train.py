"""Train the network and write weights.pth beside this file; its sha256 goes into spec.yaml.

    python -m models.digits_cnn.train FOLDER

FOLDER has digits.csv.gz, as data/raw/digits_cnn does after the stage fetch.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

from models.digits_cnn.data import load_split, preprocess
from models.digits_cnn.network import CHECKPOINT, DigitsCNN
from onnx_release.core.files import sha256

EPOCHS = 30
BATCH = 64
LEARNING_RATE = 2e-3


def load_tensors(raw: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the preprocessed images and the labels of a split."""
    images, labels = load_split(raw, split)
    return torch.stack([torch.from_numpy(preprocess(image)["image"]) for image in images]), torch.from_numpy(labels)


def train(images: torch.Tensor, labels: torch.Tensor) -> DigitsCNN:
    """Train a network on all images, and return it in eval mode."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = DigitsCNN()
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimiser.step()
        schedule.step()
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    raw = parser.parse_args().folder
    network = train(*load_tensors(raw, "calibration"))
    path = Path(__file__).with_name(CHECKPOINT)
    torch.save(network.state_dict(), path)
    images, labels = load_tensors(raw, "evaluation")
    with torch.inference_mode():
        right = int((network(images).argmax(1) == labels).sum())
    print(f"{right} of {len(labels)} right on the evaluation split; sha256 {sha256(path)}")


if __name__ == "__main__":
    main()
