"""Catalogues made on the spot: small ones that break a rule, and newer versions of ours."""

from collections.abc import Iterable
from uuid import uuid4

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from packhorse.catalogue.v1 import options_pb2

from engine.catalogue.descriptors import catalogue_of, record_files
from engine.catalogue.model import Catalogue

Type = FieldDescriptorProto.Type
STRING = FieldDescriptorProto.TYPE_STRING
CENTRAL = options_pb2.KIND_CENTRAL
STORE = options_pb2.KIND_STORE
_OUR_PACKAGE = ".packhorse.records.v1."


def field(
    name: str,
    number: int,
    kind: Type.ValueType = STRING,
    *,
    refers_to: str = "",
    required: bool = False,
    written: options_pb2.Format.ValueType = options_pb2.FORMAT_UNSPECIFIED,
    repeated: bool = False,
    type_name: str = "",
) -> FieldDescriptorProto:
    """A field of a message of the catalogue."""
    label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    made = FieldDescriptorProto(name=name, number=number, type=kind, label=label)
    if type_name:
        made.type_name = type_name
    if refers_to or required or written:
        options = options_pb2.ColumnOptions(refers_to=refers_to, required=required, format=written)
        made.options.Extensions[options_pb2.column].CopyFrom(options)
    return made


ID = field("id", 1)


def message(name: str, options: options_pb2.TableOptions, *fields: FieldDescriptorProto) -> DescriptorProto:
    """A message that is a table."""
    made = DescriptorProto(name=name, field=fields)
    made.options.Extensions[options_pb2.table].CopyFrom(options)
    return made


def central(name: str) -> options_pb2.TableOptions:
    """The options of a table of kind central."""
    return options_pb2.TableOptions(name=name, kind=CENTRAL)


def file_of(messages: Iterable[DescriptorProto], enums: Iterable[EnumDescriptorProto] = ()) -> FileDescriptor:
    """A file with these messages in a package of its own; types of `our` package are looked up in it."""
    package = f"packhorse.made_for_a_test.m{uuid4().hex}"
    proto = FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3", message_type=messages, enum_type=enums,
        dependency=["packhorse/catalogue/v1/options.proto"],
    )  # fmt: skip
    for one in proto.message_type:
        for made in one.field:
            if made.type_name:
                made.type_name = made.type_name.replace(_OUR_PACKAGE, f".{package}.")
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(proto.SerializeToString())
    return pool.FindFileByName(proto.name)


def changed_catalogue(
    added: Iterable[FieldDescriptorProto] = (),
    removed: Iterable[str] = (),
    words: dict[str, dict[str, int]] | None = None,
    tables: Iterable[DescriptorProto] = (),
) -> Catalogue:
    """Our catalogue with fields added to every message, others removed, values added to enums, and further tables."""
    messages: list[DescriptorProto] = []
    enums: list[EnumDescriptorProto] = []
    for file in record_files():
        proto = FileDescriptorProto()
        file.CopyToProto(proto)
        messages += proto.message_type
        enums += proto.enum_type
    gone = set(removed)
    for one in messages:
        kept = [made for made in one.field if made.name not in gone]
        del one.field[:]
        one.field.extend([*kept, *added])
        for made in one.field:
            if made.proto3_optional and not made.HasField("oneof_index"):
                made.oneof_index = len(one.oneof_decl)
                one.oneof_decl.add(name=f"_{made.name}")
    for enum in enums:
        for name, number in (words or {}).get(enum.name, {}).items():
            enum.value.add(name=name, number=number)
    return catalogue_of([file_of([*messages, *tables], enums)])
