"""Writes the Python messages beside the .proto files, or into the folder given as the only argument.

Messages and type stubs come for every file, service stubs only for files with a service. The proto path equals the
Python path, so nothing has to be rewritten; the `__init__.py` files are kept by hand.
"""

import re
import shutil
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent


def generate(target: Path) -> int:
    """Returns protoc's exit code; 0 when everything was written below `target`."""
    every = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("packhorse/**/*.proto"))
    services = [name for name in every if re.search(r"^service ", (ROOT / name).read_text(), re.MULTILINE)]
    programs = Path(sys.executable).parent
    common = ["protoc", f"-I{ROOT}", f"-I{Path(protoc.__file__).parent / '_proto'}"]
    plugins = [f"--plugin={name}={shutil.which(name, path=str(programs))}" for name in PLUGINS]
    messages = [f"--python_out={target}", f"--mypy_out=quiet:{target}"]
    stubs = [f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}"]
    return protoc.main([*common, *plugins, *messages, *every]) or protoc.main([*common, *plugins, *stubs, *services])


PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")

if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))
