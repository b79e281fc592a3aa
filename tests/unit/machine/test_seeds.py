"""What is read of OVF properties and NoCloud seeds: the same settings, blanks as if nothing was said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pacs.machine.seeds import cloud_properties, collect, environment_in, ovf_properties, said

ENVIRONMENT = """<?xml version="1.0" encoding="UTF-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1"
    xmlns:ve="http://www.vmware.com/schema/ovfenv" oe:id="" ve:vCenterId="vm-1">
  <PlatformSection><Kind>VMware ESXi</Kind></PlatformSection>
  <PropertySection>
    <Property oe:key="address" oe:value="192.0.2.10/24"/>
    <Property oe:key="host_name" oe:value="a &amp; &quot;b&quot;"/>
    <Property oe:key="gateway" oe:value=""/>
    <Property oe:key="dns" oe:value="null"/>
    <Property oe:key="ntp"/>
    <Property oe:key="vm.vmname" oe:value="pacs"/>
  </PropertySection>
</Environment>
"""


def test_properties_as_vmware_writes_them() -> None:
    found = ovf_properties(ENVIRONMENT)
    assert found["host_name"] == 'a & "b"'
    assert found["gateway"] == ""


def test_empty_null_and_missing_are_one() -> None:
    assert said(ovf_properties(ENVIRONMENT)) == {"address": "192.0.2.10/24", "host_name": 'a & "b"'}
    assert said({"dns": None, "ntp": " ", "gateway": "NULL", "vlan": 12}) == {"vlan": "12"}


@pytest.mark.parametrize("text", ["", "null", "<Environment", "<other/>", "x" * ((1 << 20) + 1)])
def test_what_is_no_environment_says_nothing(text: str) -> None:
    assert ovf_properties(text) == {}


@pytest.mark.parametrize("name", ["ovf-env.xml", "OVF-ENV.XML", "ovf_env.xml"])
def test_the_iso_transport_whatever_the_case(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(ENVIRONMENT)
    assert ovf_properties(environment_in(tmp_path))["address"] == "192.0.2.10/24"
    (tmp_path / name).unlink()
    assert environment_in(tmp_path) == ""


def test_a_nocloud_seed(tmp_path: Path) -> None:
    path = tmp_path / "combined.json"
    path.write_text(json.dumps({"users": [], "pacs": {"dns": ["192.0.2.53", "192.0.2.54"], "vlan": 7, "x": "y"}}))
    assert said(cloud_properties(path)) == {"dns": "192.0.2.53, 192.0.2.54", "vlan": "7"}
    assert collect(path) == {"dns": "192.0.2.53, 192.0.2.54", "vlan": "7"}
    path.write_text(json.dumps({"pacs": ["not", "a", "map"]}))
    assert cloud_properties(path) == {}
    assert cloud_properties(tmp_path / "none") == {}


def test_keys_in_a_list_are_a_line_each() -> None:
    assert said({"administrator_keys": ["ssh-ed25519 A a", "ssh-ed25519 B b"]})["administrator_keys"].count("\n") == 1
