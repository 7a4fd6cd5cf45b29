"""Names, numbers and types of the protobuf messages stay: clients of all versions read and write them."""

import pytest
from helpers.golden import golden_json

from serving.proto.headrace_pb2 import DESCRIPTOR

pytestmark = pytest.mark.law(n=8)


def described(field):
    """Return [number, type, which of optional, repeated it is]."""
    how = "repeated" if field.is_repeated else "optional" if field.has_presence and not field.message_type else ""
    return [field.number, field.message_type.full_name if field.message_type else field.type, how]


def fields_of(message):
    """Return the fields by name of a message, and of those it defines within, by message."""
    found = {message.full_name: {field.name: described(field) for field in message.fields}}
    for one in message.nested_types:
        found |= fields_of(one)
    return found


def all_fields():
    found = {}
    for message in DESCRIPTOR.message_types_by_name.values():
        found |= fields_of(message)
    return found


def all_methods():
    return {
        method.full_name: [
            method.input_type.full_name, method.client_streaming, method.output_type.full_name, method.server_streaming
        ]
        for service in DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }  # fmt: skip


def test_no_field_changes_its_name_number_or_type():
    found, golden = all_fields(), golden_json("proto")["fields"]
    for message, fields in golden.items():
        assert found[message] == fields, message
    assert found.keys() == golden.keys()


def test_no_method_changes_its_name_or_messages():
    assert all_methods() == golden_json("proto")["methods"]
