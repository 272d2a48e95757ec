"""Keras' forward of a Matterport network, layer by layer from its unfolded variables.

Tensors are float64 [N, C, H, W]; padding "same" is computed as TensorFlow documents it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tests.keras_matterport import Weights


class KerasNetwork:
    """Reads variables by the names of the layers."""

    def __init__(self, weights: Weights) -> None:
        self.weights = {name: torch.from_numpy(w).double() for name, w in weights.items()}

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: str = "valid") -> Tensor:
        kernel = self.weights[f"{name}/kernel"].permute(3, 2, 0, 1)
        if padding == "same":
            x = same(x, kernel.shape[-1], stride)
        return functional.conv2d(x, kernel, self.weights[f"{name}/bias"], stride)

    def norm(self, name: str, x: Tensor) -> Tensor:
        gamma, beta, mean, variance = (
            self.weights[f"{name}/{v}"][:, None, None]
            for v in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return gamma * (x - mean) / torch.sqrt(variance + 0.001) + beta

    def features(self, molded: Tensor) -> list[Tensor]:
        """P2 to P6 of images from which the mean is already taken."""
        x = self.norm("bn_conv1", self.conv("conv1", functional.pad(molded, (3, 3, 3, 3)), 2))
        x = functional.max_pool2d(same(functional.relu(x), 3, 2), 3, 2)
        levels = []
        for stage in range(2, 6):
            block = 0
            while f"res{stage}{chr(97 + block)}_branch2a/kernel" in self.weights:
                stride = 2 if block == 0 and stage > 2 else 1
                x = self.block(f"{stage}{chr(97 + block)}_branch", x, stride, block == 0)
                block += 1
            levels.append(x)
        return self.pyramid(levels)

    def block(self, name: str, x: Tensor, stride: int, has_projection: bool) -> Tensor:
        y = functional.relu(self.norm(f"bn{name}2a", self.conv(f"res{name}2a", x, stride)))
        y = self.norm(f"bn{name}2b", self.conv(f"res{name}2b", y, padding="same"))
        y = self.norm(f"bn{name}2c", self.conv(f"res{name}2c", functional.relu(y)))
        if has_projection:
            x = self.norm(f"bn{name}1", self.conv(f"res{name}1", x, stride))
        return functional.relu(x + y)

    def pyramid(self, levels: list[Tensor]) -> list[Tensor]:
        above = self.conv("fpn_c5p5", levels[3])
        outputs = [self.conv("fpn_p5", above, padding="same")]
        outputs.append(outputs[0][:, :, ::2, ::2])
        for level in (4, 3, 2):
            above = above.repeat_interleave(2, 2).repeat_interleave(2, 3)
            above = above + self.conv(f"fpn_c{level}p{level}", levels[level - 2])
            outputs.insert(0, self.conv(f"fpn_p{level}", above, padding="same"))
        return outputs

    def propose(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Foreground probability [n] and deltas [n, 4], dy dx dh dw, of one level of one image."""
        shared = functional.relu(self.conv("rpn_conv_shared", level, padding="same"))
        logits = self.conv("rpn_class_raw", shared).permute(0, 2, 3, 1).reshape(-1, 2)
        deltas = self.conv("rpn_bbox_pred", shared).permute(0, 2, 3, 1).reshape(-1, 4)
        return torch.softmax(logits, dim=1)[:, 1], deltas

    def classify(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities [R, C] and deltas [R, C, 4]."""
        x = pooled
        for index in (1, 2):
            x = self.conv(f"mrcnn_class_conv{index}", x)
            x = functional.relu(self.norm(f"mrcnn_class_bn{index}", x))
        x = x[:, :, 0, 0]
        probs = torch.softmax(self.dense("mrcnn_class_logits", x), dim=1)
        return probs, self.dense("mrcnn_bbox_fc", x).reshape(len(x), -1, 4)

    def dense(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}/kernel"] + self.weights[f"{name}/bias"]

    def masks(self, pooled: Tensor) -> Tensor:
        """Probabilities [R, C, M, M]."""
        x = pooled
        for index in range(1, 5):
            x = self.conv(f"mrcnn_mask_conv{index}", x, padding="same")
            x = functional.relu(self.norm(f"mrcnn_mask_bn{index}", x))
        kernel = self.weights["mrcnn_mask_deconv/kernel"]  # [2, 2, outputs, inputs]
        rows, columns = x.shape[2:]
        grown = x.new_zeros(len(x), kernel.shape[2], 2 * rows, 2 * columns)
        for i, j in np.ndindex(2, 2):
            grown[:, :, i::2, j::2] = torch.einsum("rchw,oc->rohw", x, kernel[i, j])
        bias = self.weights["mrcnn_mask_deconv/bias"][:, None, None]
        return torch.sigmoid(self.conv("mrcnn_mask", functional.relu(grown + bias)))


def same(x: Tensor, side: int, stride: int) -> Tensor:
    """TensorFlow's "same": ceil(n / stride) outputs, the odd cell of padding at the end.

    Zeros serve max pooling, too, where what is pooled went through a ReLU.
    """
    padding: list[int] = []
    for cells in (x.shape[3], x.shape[2]):
        total = max((-(-cells // stride) - 1) * stride + side - cells, 0)
        padding += [total // 2, total - total // 2]
    return functional.pad(x, padding)
