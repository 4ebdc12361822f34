"""What an operation costs whatever the machine does not grow (benchmarks/counts.json)."""

from pathlib import Path

from benchmarks import counts


def test_no_operation_costs_more_than_before(tmp_path: Path) -> None:
    with counts.counted(tmp_path) as one:
        found = counts.count_all(one)

    allowed = counts.allowed()
    assert found.keys() == allowed.keys()
    grown = {name: count for name, count in found.items() if count > allowed[name]}
    assert not grown, "if it has to be, say why in the commit that changes counts.json"
