"""What benchmarks/serving_stacks.py makes of its turns, and the tables of them."""

from benchmarks.serving_stacks import summary
from benchmarks.serving_stacks_page import describe_stacks


def turns(*rates: float, cpu_ms: float) -> list[dict[str, float]]:
    return [{"rate": rate, "errors": 1, "cpu_ms": cpu_ms} for rate in rates]


def test_a_share_is_of_the_same_round():
    ours = turns(100, 50, 200, cpu_ms=4)
    found = summary(turns(90, 45, 180, cpu_ms=5), ours)
    assert [round(found[key], 6) for key in ("rate", "share", "low", "high")] == [90, 0.9, 0.9, 0.9]
    assert (found["cpu_ms"], found["cpu_share"], found["errors"]) == (5, 1.25, 3)


def test_the_tables_have_a_row_for_each_load_and_server_and_one_for_each_attack():
    ours = turns(100, 50, cpu_ms=4)
    servers = {"this server": ours, "uvicorn": turns(110, 55, cpu_ms=3), "granian": turns(50, 25, cpu_ms=8)}
    page = describe_stacks(
        {
            "machine": "Toy CPU, 2 cores",
            "versions": {"uvicorn": "1.0", "granian": "2.0"},
            "throughput": {
                "rounds": 2,
                "seconds": 3,
                "loads": {"tensors": {name: summary(found, ours) for name, found in servers.items()}},
            },
            "attacks": {
                name: {"a slow head": answer} for name, answer in zip(servers, ("408", "open", "closed"), strict=True)
            },
        }
    )
    assert "| tensors | this server | 75 | 1 | 4 | 1.00 |" in page
    assert "| tensors | uvicorn | 82.5 | 1.10 [1.10, 1.10] | 3 | 0.75 |" in page
    assert "| a slow head | 408 | open | closed |" in page
    assert "uvicorn 1.0, granian 2.0; Toy CPU, 2 cores" in page
