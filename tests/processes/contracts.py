"""Programs with other catalogues: the contract with a message file less or more, generated and put before ours."""

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parents[2] / "protos"
RECORDS = Path("packhorse") / "records" / "v1"
COLD_BOX = """syntax = "proto3";

package packhorse.records.v1;

import "packhorse/catalogue/v1/options.proto";

// A box that keeps vaccines cold on the way.
message ColdBox {
  option (packhorse.catalogue.v1.table) = {
    name: "cold_box"
    kind: KIND_STORE
    store_column: "store_id"
  };
  // Unique string. Required.
  string id = 1;
  // The store that owns it.
  string store_id = 2 [(packhorse.catalogue.v1.column) = {
    refers_to: "store"
    required: true
  }];
  // What is written on it.
  string label = 3;
  // Hours that it keeps cold.
  uint32 hours_cold = 4;
}
"""
"""The one message file that adds a table; nothing else is changed anywhere."""


def contract(
    folder: Path, added: Mapping[str, str] = {}, removed: tuple[str, ...] = (), more: Mapping[str, str] = {}
) -> dict[str, str]:
    """Makes a contract of its own; returns the environment in which programs have it.

    Args:
        folder: where it is made; must not exist.
        added: name of a file of records -> its text.
        removed: names of files of records that are not there.
        more: name of a file of records -> fields that are put behind those of its first message.
    """
    shutil.copytree(PROTOS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in removed:
        for path in (folder / RECORDS).glob(f"{name}*"):
            path.unlink()
    for name, text in added.items():
        (folder / RECORDS / f"{name}.proto").write_text(text)
    for name, fields in more.items():
        path = folder / RECORDS / f"{name}.proto"
        head, end, rest = path.read_text().partition("\n}\n\n// One batch moved")
        assert end, f"{name}.proto has another form than expected"
        path.write_text(f"{head}\n{fields}{end}{rest}")
    changed = [str(RECORDS / f"{name}.proto") for name in (*added, *more)]
    specification = importlib.util.find_spec("grpc_tools")
    assert specification is not None and specification.origin is not None
    well_known = Path(specification.origin).parent / "_proto"
    arguments = ["protoc", f"-I{folder}", f"-I{well_known}", f"--python_out={folder}", *changed]
    assert not changed or protoc.main(arguments) == 0
    others = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{others}" if others else str(folder)}
