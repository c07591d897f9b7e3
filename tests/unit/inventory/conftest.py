"""What the tests of the tiers plugin share: Ansible's own inventory machinery, without a network."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.inventory.data import InventoryData
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = "scaleup.webstack.tiers"
# Names that resolve in the tests; nothing is looked up.
RESOLVES = {"db1.example.org": ["10.0.0.41"], "web1.example.org": ["2001:db8::21", "10.0.0.21"]}


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Replaces the resolver of the machine; gives the list of the names that were looked up."""
    asked: list[str] = []

    def getaddrinfo(name: str, *_args: Any, **_kwargs: Any) -> list[Any]:
        asked.append(name)
        if name not in RESOLVES:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in RESOLVES[name]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked


class Site:
    """A folder of inventory sources, and the inventory that Ansible makes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> str:
        """Write a source; gives its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    def manager(self, *sources: str) -> Any:
        """Ansible's own reading of the sources; failing sources are only warnings, as by default."""
        return InventoryManager(loader=DataLoader(), sources=list(sources))

    def read(self, config: str, sources: dict[str, str] | None = None) -> Any:
        """The inventory after the sources and then the configuration, which must not fail.

        The plugin gets the same wrapper around the inventory as from Ansible; a failure is raised, not a warning.
        """
        paths = [self.write(name, text) for name, text in (sources or {}).items()]
        path = self.write("site.tiers.yml", config)
        plain = self.manager(*paths)._inventory if paths else InventoryData()
        if error := self.error_of(plain, path):
            raise AssertionError(error)
        manager = self.manager(*paths, path)
        return manager._inventory

    def error(self, config: str, sources: dict[str, str] | None = None) -> str:
        """The error that the configuration ends with; fails when there is none, or when it changed the inventory."""
        paths = [self.write(name, text) for name, text in (sources or {}).items()]
        path = self.write("site.tiers.yml", config)
        inventory = self.manager(*paths)._inventory if paths else InventoryData()
        before = snapshot(inventory)
        error = self.error_of(inventory, path)
        assert error is not None, "no error"
        assert snapshot(inventory) == before, "the error left something in the inventory"
        return error.replace(str(self.folder) + "/", "")

    @staticmethod
    def error_of(inventory: Any, path: str) -> str | None:
        """The message of the plugin's error, or None. Anything but an Ansible error is a defect and is raised."""
        plugin = inventory_loader.get(PLUGIN)
        try:
            plugin.parse(inventory, DataLoader(), path)
        except AnsibleError as error:
            return str(error)
        return None


def snapshot(inventory: Any) -> dict[str, Any]:
    """All that an inventory holds, as plain data."""
    return {
        "groups": {
            name: (
                sorted(host.name for host in group.hosts),
                sorted(child.name for child in group.child_groups),
                dict(group.vars),
            )
            for name, group in inventory.groups.items()
        },
        "hosts": {name: dict(host.vars) for name, host in inventory.hosts.items()},
    }


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty folder for sources."""
    return Site(tmp_path)


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture
def members() -> Callable[[Any, str], list[str]]:
    """The names of the hosts in a group, in their order."""
    return lambda inventory, group: [host.name for host in inventory.groups[group].get_hosts()]
