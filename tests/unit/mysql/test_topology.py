"""From what the database nodes say to what is done: every state of issue 7, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_topology import (
    Node,
    Replica,
    count_gtids,
    judge,
    may_resume,
    parse_gtids,
    plan_failover,
    plan_rejoin,
    plan_switchover,
    subtract_gtids,
)
from hypothesis import given
from hypothesis import strategies as st

A, B, C = (f"{letter * 8}-0000-0000-0000-000000000000" for letter in "abc")
UUIDS = {"db1": A, "db2": B, "db3": C}


def node(name: str, **values: Any) -> Node:
    number = int(name[-1])
    base: dict[str, Any] = {
        "server_id": number,
        "server_uuid": UUIDS[name],
        "gtid_executed": f"{A}:1-100",
        "schemas": ["shop"],
    }
    return Node(name, f"10.0.0.{number}", **(base | values))


def primary(name: str = "db1", **values: Any) -> Node:
    return node(name, **({"read_only": False, "super_read_only": False} | values))


def replica(name: str, of: str = "db1", executed: str = f"{A}:1-100", **values: Any) -> Node:
    settings = {"source_host": f"10.0.0.{of[-1]}", "source_uuid": UUIDS[of], "io_running": "Yes", "sql_running": "Yes"}
    return node(name, gtid_executed=executed, replica=Replica(**(settings | {"lag": 0} | values)))


def fresh(name: str) -> Node:
    return node(name, gtid_executed="", schemas=[])


def silent(name: str) -> Node:
    return Node(name, f"10.0.0.{name[-1]}", reachable=False, error="timed out")


def actions(*nodes: Node, declared: str = "db1", bootstrap: str = "") -> dict[str, str]:
    verdict = judge(nodes, declared, bootstrap)
    assert verdict.problems == []
    return verdict.actions


def problem(*nodes: Node, declared: str = "db1", bootstrap: str = "") -> str:
    verdict = judge(nodes, declared, bootstrap)
    assert set(verdict.actions.values()) == {"keep"}, "with a problem nothing is done anywhere"
    return " ".join(verdict.problems)


# --- sets of GTIDs -------------------------------------------------------------------------------------------------


def numbers(text: str) -> set[tuple[str, int]]:
    return {(key, n) for key, parts in parse_gtids(text).items() for a, b in parts for n in range(a, b + 1)}


def as_text(pairs: set[tuple[str, int]]) -> str:
    return ",".join(f"{key}:{number}" for key, number in sorted(pairs))


gtid_sets = st.sets(st.tuples(st.sampled_from([A, B, f"{A}:tag"]), st.integers(1, 12)))


@given(gtid_sets, gtid_sets)
def test_subtraction_is_that_of_sets(left: set[tuple[str, int]], right: set[tuple[str, int]]) -> None:
    assert numbers(subtract_gtids(as_text(left), as_text(right))) == left - right
    assert count_gtids(as_text(left)) == len(left)


def test_the_servers_own_way_of_writing_is_read() -> None:
    assert parse_gtids(f"{A}:1-3:5:7-9,\n{B}:tag:1-2:other:4".upper()) == {
        A: [(1, 3), (5, 5), (7, 9)],
        f"{B}:tag": [(1, 2)],
        f"{B}:other": [(4, 4)],
    }


# --- a new tier ----------------------------------------------------------------------------------------------------


def test_a_new_tier_begins_with_the_declared_primary() -> None:
    assert actions(fresh("db1"), fresh("db2"), fresh("db3")) == {"db1": "bootstrap", "db2": "join", "db3": "join"}


def test_a_new_tier_does_not_begin_while_a_node_is_silent() -> None:
    assert "db2 does not answer: it may hold the site's data" in problem(fresh("db1"), silent("db2"))


def test_the_operator_may_begin_it_all_the_same() -> None:
    assert actions(fresh("db1"), silent("db2"), bootstrap="db1")["db1"] == "bootstrap"


def test_the_operators_word_does_not_count_against_data() -> None:
    assert "No node is writable" in problem(fresh("db1"), node("db2"), silent("db3"), bootstrap="db1")


def test_an_emptied_node_is_a_replica_never_a_second_primary() -> None:
    assert actions(fresh("db1"), primary("db2")) == {"db1": "join", "db2": "keep"}
    assert "mysql_replication_candidate=db2" in problem(fresh("db1"), replica("db2"))


# --- a running tier ------------------------------------------------------------------------------------------------


def test_a_healthy_tier_is_left_alone_whoever_is_the_primary() -> None:
    assert set(actions(primary(), replica("db2"), replica("db3")).values()) == {"keep"}
    assert set(actions(replica("db1", of="db2"), primary("db2")).values()) == {"keep"}


def test_a_replica_behind_is_no_problem_but_one_ahead_is() -> None:
    assert actions(primary(), replica("db2", executed=f"{A}:1-90"))["db2"] == "keep"
    assert f"lacks: {B}:1" in problem(primary(), replica("db2", executed=f"{A}:1-90,{B}:1"))


def test_two_writable_nodes_stop_everything() -> None:
    assert "db1 and db2 are writable at once" in problem(primary(), primary("db2"))


def test_broken_replication_stops_everything_and_stopped_is_started() -> None:
    broken = replica("db2", sql_running="No", sql_error="Duplicate entry")
    assert "Duplicate entry" in problem(primary(), broken)
    assert actions(primary(), replica("db2", sql_running="No"))["db2"] == "start"


def test_a_copied_data_directory_is_noticed() -> None:
    assert "the same server_uuid" in problem(primary(), replica("db2"), node("db3", server_uuid=B))


def test_purged_logs_mean_a_copy() -> None:
    assert actions(primary(gtid_purged=f"{A}:1-50"), fresh("db2"))["db2"] == "clone"
    assert actions(primary(gtid_purged=f"{A}:1-50"), node("db2", gtid_executed=f"{A}:1-60"))["db2"] == "join"


# --- a primary that restarted --------------------------------------------------------------------------------------


def test_a_restarted_primary_resumes() -> None:
    assert actions(node("db1"), replica("db2"))["db1"] == "resume"
    assert may_resume(node("db1"), [replica("db2"), replica("db3")]) == []


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ([silent("db2"), replica("db3")], "db2 does not answer"),
        ([primary("db2"), replica("db3")], "db2 is writable"),
        ([replica("db2", executed=f"{A}:1-101")], f"that db1 lacks: {A}:101"),
        ([replica("db2", retrieved=f"{A}:101")], f"that db1 lacks: {A}:101"),
        ([replica("db2", of="db3")], "db2 does not replicate from db1"),
        ([node("db2")], "db2 does not replicate from db1"),
    ],
)
def test_it_stays_fenced_otherwise(others: list[Node], reason: str) -> None:
    assert reason in " ".join(may_resume(node("db1"), others))


def test_an_emptied_primary_never_resumes() -> None:
    assert may_resume(fresh("db1"), [replica("db2")]) != []


# --- an interrupted switchover -------------------------------------------------------------------------------------


def test_one_that_died_before_the_source_changed_is_undone() -> None:
    stopped = replica("db2", io_running="No", sql_running="No")
    assert actions(node("db1"), stopped, replica("db3")) == {"db1": "resume", "db2": "start", "db3": "keep"}


@pytest.mark.parametrize("started", ["Yes", "Connecting", "No"])
def test_one_that_died_before_the_candidate_was_writable_is_finished(started: str) -> None:
    old = replica("db1", of="db2", io_running=started, sql_running="Yes" if started != "No" else "No")
    new = replica("db2", io_running="No", sql_running="No")
    verdict = judge([old, new, replica("db3")], "db1")
    assert verdict.problems == []
    assert "finish" in verdict.actions.values()


def test_one_that_died_at_its_end_is_completed() -> None:
    new = primary("db2", replica=Replica(source_host="10.0.0.1", source_uuid=A))
    assert actions(replica("db1", of="db2"), new, replica("db3")) == {"db1": "keep", "db2": "promoted", "db3": "join"}


# --- plans ---------------------------------------------------------------------------------------------------------


def test_a_switchover_takes_the_replica_that_is_least_behind() -> None:
    old, new, others, problems = plan_switchover([primary(), replica("db2", lag=3), replica("db3")], "", 10)
    assert (old.name, new.name, [n.name for n in others], problems) == ("db1", "db3", ["db2"], [])


@pytest.mark.parametrize(
    ("nodes", "candidate", "reason"),
    [
        ([primary(), replica("db2", lag=11)], "", "11 s behind"),
        ([primary(), replica("db2", lag=None)], "", "an unknown time behind"),
        ([primary(), replica("db2", sql_running="No")], "", "stopped"),
        ([primary(), replica("db2"), silent("db3")], "db2", "db3 does not answer"),
        ([primary(), replica("db2")], "db9", "db9 is none of the nodes"),
        ([primary()], "", "no replica"),
    ],
)
def test_a_switchover_is_refused(nodes: list[Node], candidate: str, reason: str) -> None:
    assert reason in " ".join(plan_switchover(nodes, candidate, 10)[3])


def cut(name: str, executed: str, retrieved: str = "") -> Node:
    return replica(name, executed=executed, io_running="Connecting", retrieved=retrieved, lag=None)


def failover(*nodes: Node, candidate: str = "", dead: bool = True, loss: bool = False) -> tuple[str, str]:
    chosen, _, problems, _ = plan_failover(nodes, candidate, dead, loss)
    return chosen.name if chosen else "", " ".join(problems)


def test_a_failover_takes_the_most_advanced_replica_even_if_it_still_has_to_apply() -> None:
    behind, ahead = cut("db2", f"{A}:1-100"), cut("db3", f"{A}:1-95", f"{A}:90-104")
    assert failover(silent("db1"), behind, ahead) == ("db3", "")


@pytest.mark.parametrize(
    ("nodes", "options", "reason"),
    [
        ([primary(), replica("db2")], {}, "there is a primary"),
        ([silent("db1"), cut("db2", f"{A}:1-9")], {"dead": False}, "nothing shows that it is dead"),
        ([silent("db1"), cut("db2", f"{A}:1-9"), replica("db3")], {}, "db3 still receives"),
        ([silent("db1"), cut("db2", f"{A}:1-9"), silent("db3")], {}, "db3 does not answer"),
        ([silent("db1"), cut("db2", f"{A}:1,{B}:1"), cut("db3", f"{A}:1,{C}:1")], {}, "none can take over"),
        (
            [silent("db1"), cut("db2", f"{A}:1-9"), cut("db3", f"{A}:1-12")],
            {"candidate": "db2"},
            "lacks 3 transactions",
        ),
        ([node("db1"), cut("db2", f"{A}:1-9")], {}, "the former primary db1 answers"),
        ([silent("db1"), fresh("db2")], {}, "no replica with data"),
    ],
)
def test_a_failover_is_refused(nodes: list[Node], options: dict[str, Any], reason: str) -> None:
    assert reason in failover(*nodes, **options)[1]


def test_the_operator_may_accept_a_loss() -> None:
    nodes = [silent("db1"), cut("db2", f"{A}:1-9"), cut("db3", f"{A}:1-12")]
    assert failover(*nodes, candidate="db2", loss=True) == ("db2", "")


def test_a_node_comes_back_by_gtid_only_where_nothing_diverged() -> None:
    new = primary("db2", gtid_executed=f"{A}:1-100,{B}:1-5")
    assert plan_rejoin([node("db1"), new], "db1", False)[1:] == ("join", [])
    diverged = node("db1", gtid_executed=f"{A}:1-101")
    how, problems = plan_rejoin([diverged, new], "db1", False)[1:]
    assert how == "keep" and "It is never forced" in problems[0]
    assert plan_rejoin([diverged, new], "db1", True)[1:] == ("clone", [])


def test_a_writable_node_is_not_rejoined() -> None:
    assert "Fence it first" in plan_rejoin([primary(), primary("db2")], "db1", True)[2][0]
