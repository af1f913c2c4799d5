"""The trained digits network as ONNX models."""

from dataclasses import dataclass, field

import onnx
from data import Floats
from model import Block, ConvNorm, DigitsNetwork, Head
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 17
IR_VERSION = 8


@dataclass
class GraphBuilder:
    """Nodes and initializers of an ONNX graph, named after the network's parts."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def add(
        self,
        name: str,
        operator: str,
        inputs: list[str],
        *,
        output: str | None = None,
        **attributes: int | list[int],
    ) -> str:
        """Append one node and return its output, `<name>/out` unless named."""
        output = output or f"{name}/out"
        node = helper.make_node(operator, inputs, [output], name)
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in attributes.items()
        )
        self.nodes.append(node)
        return output

    def weight(self, name: str, array: Floats) -> str:
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, name: str, layer: ConvNorm, x: str) -> str:
        """Append the folded convolution and return its output."""
        weight, bias = layer.folded()
        pad = weight.shape[-1] // 2
        return self.add(
            name,
            "Conv",
            [
                x,
                self.weight(f"{name}/weight", weight),
                self.weight(f"{name}/bias", bias),
            ],
            kernel_shape=list(weight.shape[2:]),
            strides=list(layer.conv.stride),
            pads=[pad] * 4,
        )

    def block(self, name: str, block: Block, x: str, *, output: str | None) -> str:
        """Append the residual block; its last ReLU writes `output`."""
        y = self.conv(f"{name}/conv0", block.conv0, x)
        y = self.add(f"{name}/relu0", "Relu", [y])
        y = self.conv(f"{name}/conv1", block.conv1, y)
        if block.shortcut is not None:
            x = self.conv(f"{name}/shortcut", block.shortcut, x)
        y = self.add(f"{name}/add", "Add", [y, x])
        return self.add(f"{name}/relu1", "Relu", [y], output=output)

    def head(self, name: str, head: Head, x: str) -> str:
        """Append the classifier; it writes `logits`."""
        weight, bias = head.linear.weight.detach(), head.linear.bias.detach()
        x = self.add(f"{name}/pool", "GlobalAveragePool", [x])
        x = self.add(f"{name}/flatten", "Flatten", [x])
        names = [
            self.weight(f"{name}/linear/weight", weight.numpy()),
            self.weight(f"{name}/linear/bias", bias.numpy()),
        ]
        return self.add(
            f"{name}/linear", "Gemm", [x, *names], output="logits", transB=1
        )

    def model(self, name: str, source: str, shape: tuple[int, ...]) -> onnx.ModelProto:
        """Return the checked model from `source`, float32 [N, *shape], to `logits`."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["N", *shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
            self.weights,
        )
        model = helper.make_model(
            graph,
            producer_name="understudy",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        # The shapes between the nodes are stored: a cut is priced by reading them.
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
        return model


def full_model(network: DigitsNetwork) -> onnx.ModelProto:
    """Return the network without its exits; stage i writes `features<i>`."""
    builder = GraphBuilder()
    x = builder.conv("stem/conv", network.stem, "input")
    x = builder.add("stem/relu", "Relu", [x])
    for i, stage in enumerate(network.stages, 1):
        assert isinstance(stage, nn.Sequential)
        for j, block in enumerate(stage):
            assert isinstance(block, Block)
            output = f"features{i}" if j == len(stage) - 1 else None
            x = builder.block(f"stage{i}/block{j}", block, x, output=output)
    head = network.heads[-1]
    assert isinstance(head, Head)
    builder.head("head", head, x)
    return builder.model("digits", "input", (1, 8, 8))


def exit_model(name: str, head: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Return the exit head from `features`, float32 [N, *shape], to `logits`."""
    assert isinstance(head, Head)
    builder = GraphBuilder()
    builder.head("head", head, "features")
    return builder.model(name, "features", shape)
