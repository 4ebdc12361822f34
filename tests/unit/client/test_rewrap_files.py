"""Runs over files: what is asked of the agent, what is counted, what goes on after a failure."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import keycustody
from keycustody import errors
from keycustody.client import rewrap_files
from keycustody.formats import envelope
from tests.unit.client.agent_double import AgentDouble

BOTH_DRIVERS = True

ANY = keycustody.ANY


@pytest.fixture
def folder(agent: keycustody.Agent, double: AgentDouble, tmp_path: Path) -> Path:
    """Envelopes of two contexts under version 1, and other things; the newest version is 2."""
    folder = tmp_path / "data"
    (folder / "deep" / "er").mkdir(parents=True)
    for tenant, names in (("42", "abc"), ("43", "de")):
        with agent.session("invoices", context={"tenant": tenant}) as session:
            for name in names:
                (folder / "deep" / name).write_bytes(session.encrypt(name.encode()))
    (folder / "text").write_bytes(b"no envelope")
    (folder / "deep" / "er" / "empty").touch()
    double.newest = 2
    return folder


def run(agent: keycustody.Agent, *paths: Path, **options: Any) -> Counter[str]:
    results = agent.rewrap_files(paths, **({"keys": ["invoices"]} | options))
    return Counter(one.result for one in results)


def versions(folder: Path) -> Counter[int]:
    headers = (envelope.parse(path.read_bytes())[0] for path in (folder / "deep").glob("?"))
    return Counter(header.version for header in headers)


def test_everything_is_moved_once(
    agent: keycustody.Agent, double: AgentDouble, folder: Path
) -> None:
    bodies = {path: path.read_bytes()[119:] for path in (folder / "deep").glob("?")}
    assert run(agent, folder) == {"moved": 5, "no-envelope": 2}
    # One request for each version and context.
    assert double.count("RewrapSessionKeys") == 2
    assert versions(folder) == {2: 5}
    assert {path: path.read_bytes()[119:] for path in bodies} == bodies
    for path in bodies:
        assert agent.decrypt(path.read_bytes(), key=ANY, context=ANY) == path.name.encode()
    assert run(agent, folder) == {"newest": 5, "no-envelope": 2}


def test_a_dry_run_writes_nothing(agent: keycustody.Agent, folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert run(agent, folder, dry_run=True) == {"moved": 5, "no-envelope": 2}
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_other_keys_links_and_odd_paths(
    agent: keycustody.Agent, folder: Path, tmp_path: Path
) -> None:
    (folder / "link").symlink_to("deep")
    (folder / "deep" / "link").symlink_to("a")
    os.mkfifo(folder / "pipe")
    assert run(agent, folder, keys=["receipts"]) == {"other-key": 5, "no-envelope": 2}
    odd = [folder / "link", folder / "pipe", tmp_path / "nowhere"]
    assert run(agent, *odd, keys=ANY) == {"failed": 3}
    assert versions(folder) == {1: 5}
    assert run(agent, folder / "deep" / "a", folder / "deep" / "a", keys=ANY).total() == 2
    assert versions(folder) == {1: 4, 2: 1}


def test_one_bad_file_stops_no_other(agent: keycustody.Agent, folder: Path) -> None:
    path = folder / "deep" / "a"
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    (folder / "broken").write_bytes(b"KCUSTODY")
    results = {one.path: one for one in agent.rewrap_files([folder], keys=ANY)}
    assert isinstance(results[str(path)].error, errors.WrappedKeyRejected)
    assert isinstance(results[str(folder / "broken")].error, errors.TruncatedEnvelope)
    assert Counter(one.result for one in results.values())["moved"] == 4
    assert path.read_bytes() == data


def test_a_folder_that_cannot_be_written_says_so(agent: keycustody.Agent, folder: Path) -> None:
    (folder / "deep").chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        results = list(agent.rewrap_files([folder / "deep" / "a"], keys=ANY))
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        (folder / "deep").chmod(0o755)
    assert [type(one.error) for one in results] == [errors.FileUnusable]
    assert versions(folder) == {1: 5}


def test_a_grant_with_a_small_burst_gets_small_batches(
    agent: keycustody.Agent,
    double: AgentDouble,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rewrap_files, "_PAUSE_SECONDS", 0.0)
    refusals = 0

    def at_most_one(response: Any) -> Any:
        nonlocal refusals
        if len(response.results) > 1 or refusals < 4:
            refusals += 1
            raise errors.RateExceeded("Slow down.")
        return response

    double.tamper["RewrapSessionKeys"] = at_most_one
    assert run(agent, folder)["moved"] == 5


def test_a_rate_that_is_used_up_is_waited_for_and_batches_stay(
    agent: keycustody.Agent, double: AgentDouble, folder: Path
) -> None:
    sizes: list[int] = []

    def used_up_once(response: Any) -> Any:
        sizes.append(len(response.results))
        if len(sizes) == 1:
            raise errors.RateExceeded("Slow down.", retry_after=0.05)
        return response

    double.tamper["RewrapSessionKeys"] = used_up_once
    assert run(agent, folder)["moved"] == 5
    assert sizes[0] > 1
    assert sizes[1] == sizes[0]


def test_an_agent_that_stays_away_ends_the_run(
    agent: keycustody.Agent,
    double: AgentDouble,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rewrap_files, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(rewrap_files, "_TRIES", 2)

    def unavailable(response: Any) -> Iterator[Any]:
        raise errors.Overloaded("Too much to do.")

    double.tamper["RewrapSessionKeys"] = unavailable
    with pytest.raises(errors.Overloaded):
        run(agent, folder)
    double.tamper.clear()
    assert run(agent, folder)["moved"] == 5


def test_many_contexts_are_held_in_bounds(
    agent: keycustody.Agent,
    double: AgentDouble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rewrap_files, "_PENDING", 8)
    for number in range(30):
        with agent.session("invoices", context={"n": str(number)}) as session:
            (tmp_path / f"{number}.kc").write_bytes(session.encrypt(b""))
    double.newest = 2
    seen = []
    for result in agent.rewrap_files([tmp_path], keys=ANY):
        seen.append(result)
        # The first come back long before the last was looked at.
        assert double.count("RewrapSessionKeys") <= len(seen) + 8
    assert Counter(one.result for one in seen) >= Counter({"moved": 30})


@pytest.mark.parametrize("keys", [[], "invoices"], ids=["none", "a string"])
def test_keys_are_named(agent: keycustody.Agent, tmp_path: Path, keys: Any) -> None:
    with pytest.raises(errors.InvalidRequest):
        agent.rewrap_files([tmp_path], keys=keys)
