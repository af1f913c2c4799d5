from pathlib import Path

from understudy.demo import shipped
from understudy.plans import compile_deployment


def test_deployment_beside_its_plan_is_not_copied_onto_itself(tmp_path: Path) -> None:
    """`up deployment.yaml --run .` said that the plan cannot be written (None)."""
    for name in ("digits.yaml", "digits.onnx", "digits-exit1.onnx"):
        (tmp_path / name).symlink_to(shipped(name))
    for name in ("digits-exit2.onnx", "digits-test.npz"):
        (tmp_path / name).symlink_to(shipped(name))
    deployment = tmp_path / "deployment.yaml"
    deployment.write_text(shipped("two-by-two.yaml").read_text())
    text = deployment.read_text()
    compile_deployment(deployment, tmp_path / "plan")
    assert deployment.read_text() == text
