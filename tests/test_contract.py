"""The committed Python of the contract is what the .proto files say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_generated_code_has_not_drifted(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "protos" / "generate.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    folder = ROOT / "protos"
    kept = {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.name.endswith((".py", ".pyi")) and path.name not in ("__init__.py", "generate.py")
    }
    assert made.keys() == kept.keys()
    for path, content in made.items():
        assert kept[path] == content, f"{path} is not what `make protos` makes"
