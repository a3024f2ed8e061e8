"""ResNeXt-50 (32 x 4d): a residual network whose 3 x 3 convolutions work in 32 groups; 25 million parameters.

Source: Xie et al., "Aggregated residual transformations for deep neural networks", 2017, table 1.
"""

from __future__ import annotations

from typing import Any

import blocks
import resnet

resnext50 = resnet.network(resnet.DESIGNS["resnext50"])


def model(size: int = 224, classes: int = 1000) -> Any:
    """Return the network as a graph from "images" to "probabilities"."""
    return blocks.inference(resnext50, size, 3, classes)
