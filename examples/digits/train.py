"""Train, export and measure the digits model of the demo.

A residual network of three stages (`model.py`) classifies the 8x8 handwritten digits
that come with scikit-learn. Two exit heads read the tensors between the stages, so that
a device that has lost its server can still answer from what it has computed itself.

    python examples/digits/train.py              train, write graphs/digits, measure
    python examples/digits/train.py --check      verify the written files, no training
    python examples/digits/train.py --validate   cross-validate in the training part

The schedule is fixed: no image of the test part takes part in training, not even in
when to stop. All figures come from onnxruntime running the written files.
"""

import argparse
import json
import sys

import numpy as np
import torch
from data import FOLDER, SEED, Bytes, network_input, split
from export import exit_model, full_model
from measure import differences, record
from model import DigitsNetwork
from sklearn.model_selection import StratifiedKFold  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional

EPOCHS = 120
BATCH = 64
LEARNING_RATE_MAX = 0.1
WEIGHT_DECAY = 5e-4


def augmented(x: Tensor) -> Tensor:
    """Return the images, each under its own small random affine map.

    Rotation up to 12 degrees, scale and shear up to 12 %, shifts up to one pixel, all
    bilinear: an 8x8 image has no room for shifts by whole pixels alone.
    """
    angle, scale_x, scale_y, shear, shift_x, shift_y = torch.rand(6, len(x)) * 2 - 1
    cos, sin = torch.cos(angle * 0.21), torch.sin(angle * 0.21)
    scale_x, scale_y = 1 + 0.12 * scale_x, 1 + 0.12 * scale_y
    shear = shear * 0.12
    maps = torch.stack(
        [
            torch.stack([cos * scale_x, shear - sin, shift_x * 0.25], 1),
            torch.stack([sin + shear, cos * scale_y, shift_y * 0.25], 1),
        ],
        1,
    )
    grid = functional.affine_grid(maps, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def trained(images: Bytes, digits: Bytes) -> DigitsNetwork:
    """Return the network after a fixed one-cycle schedule of `EPOCHS` epochs.

    The loss is the cross entropy of all three heads (deep supervision, Lee et al.,
    "Deeply-Supervised Nets", AISTATS 2015); how far it reaches back into the stages is
    `model.HEAD_SHARES`. One thread and deterministic kernels make the result a
    function of the seed, the library versions and the processor's instruction set.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    torch.manual_seed(SEED)
    x = torch.from_numpy(network_input(images))
    y = torch.from_numpy(digits.astype(np.int64))
    steps = len(x) // BATCH
    network = DigitsNetwork()
    optimizer = torch.optim.SGD(
        network.parameters(), momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE_MAX, total_steps=EPOCHS * steps
    )
    for _ in range(EPOCHS):
        # The last short batch is dropped: its normalisation statistics would be noise.
        for batch in torch.randperm(len(x))[: steps * BATCH].view(steps, BATCH):
            exit1, exit2, full = (
                functional.cross_entropy(logits, y[batch], label_smoothing=0.05)
                for logits in network(augmented(x[batch]))
            )
            optimizer.zero_grad()
            torch.autograd.backward(exit1 + exit2 + full)
            optimizer.step()
            schedule.step()
    return network.eval()


def write(network: DigitsNetwork, images: Bytes, digits: Bytes) -> None:
    """Write the three models and the test images to `FOLDER`."""
    models = {
        "digits": full_model(network),
        "digits-exit1": exit_model("digits-exit1", network.heads[0], (8, 8, 8)),
        "digits-exit2": exit_model("digits-exit2", network.heads[1], (16, 4, 4)),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        content = model.SerializeToString(deterministic=True)
        (FOLDER / f"{name}.onnx").write_bytes(content)
    np.savez(FOLDER / "digits-test.npz", x=images, y=digits)


def validate(images: Bytes, digits: Bytes) -> None:
    """Print the correct answers of five-fold cross-validation inside the training part.

    Channels, schedule and `model.HEAD_SHARES` were chosen by these numbers.
    """
    errors = {"exit1": 0, "exit2": 0, "full": 0}
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for train, held_out in folds.split(images, digits):
        network = trained(images[train], digits[train])
        with torch.no_grad():
            answers = network(torch.from_numpy(network_input(images[held_out])))
        for name, logits in zip(errors, answers, strict=True):
            wrong = logits.argmax(1).numpy() != digits[held_out]
            errors[name] += int(wrong.sum())
    for name, count in errors.items():
        print(f"{name:28} {len(digits) - count}/{len(digits)}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the digits model of the demo.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--check", action="store_true", help="verify the written files, no training"
    )
    mode.add_argument(
        "--validate", action="store_true", help="cross-validate, write nothing"
    )
    arguments = parser.parse_args()
    train_x, test_x, train_y, test_y = split()
    if arguments.validate:
        validate(train_x, train_y)
        return 0
    if not arguments.check:
        write(trained(train_x, train_y), test_x, test_y)
        text = json.dumps(record(len(train_x)), indent=2) + "\n"
        (FOLDER / "digits.json").write_text(text)
    for fault in (faults := differences(len(train_x), test_x, test_y)):
        print(fault, file=sys.stderr)
    written = json.loads((FOLDER / "digits.json").read_text())
    for name, count in written["macs"].items():
        print(f"{name:28} {count} multiply-accumulates")
    for name, row in written["accuracy"].items():
        print(f"{name:28} {row['correct']}/{row['images']}  95 %: {row['wilson_95']}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
